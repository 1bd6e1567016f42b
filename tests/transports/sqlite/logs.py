"""What tests ask of a write-ahead log."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from neuralcore_transports.sqlite.log import LogFile

__all__ = ["used_of"]


def used_of(log: Path) -> int:
    """Bytes of it that are in use, measured afresh."""
    with closing(LogFile(log)) as file:
        return file.used()
