"""The command line: ``neuralcore``. What it prints is for people; ``--json`` is for machines."""

from __future__ import annotations

import sys
import warnings

__all__ = ["main"]

PIP = "pip install 'neuralcore-runtime[cli]'"


def main() -> None:
    """The entry point. Says which extra to install when the command line's own packages are missing."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            from neuralcore.cli.app import app
        except ModuleNotFoundError as error:
            if error.name not in ("rich", "typer"):
                raise
            from neuralcore.messaging.errors import MissingExtra

            raise SystemExit(f"neuralcore: {MissingExtra(error.name, PIP)}") from None
    for warning in caught:
        print(warning.message, file=sys.stderr)
    app()
