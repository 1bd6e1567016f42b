"""What every command has in common, those of other distributions too: ``--json``, and how it ends.

Exit code 0: all is well, 1: it is not, 2: called wrongly.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Final

import typer

from neuralcore.messaging.errors import NeuralCoreError

__all__ = ["INTERRUPTED", "Json", "end", "reported"]

INTERRUPTED: Final = 130

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


@contextmanager
def reported() -> Iterator[None]:
    """Turn what a command may run into into a line and an exit code."""
    try:
        yield
    except NeuralCoreError as error:
        print(f"neuralcore: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        print("neuralcore: interrupted; everything is closed", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def end(ok: bool, document: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(document, indent=2))
    raise typer.Exit(0 if ok else 1)
