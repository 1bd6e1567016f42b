"""Where the commands print."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from rich.console import Console

__all__ = ["Output"]


class Output(Console):
    """A console whose reader may go away (``neuralcore demo | head``): that counts as an interruption by the user."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        signal.raise_signal(signal.SIGINT)
