"""The transport of a worker on SQLite."""

from __future__ import annotations

from neuralcore_transports.sqlite import SqliteTransport, checkpoint, keeper

__all__ = ["make"]


def make(url: str, *, log_due: int = 0, heart: bool = True) -> SqliteTransport:
    if log_due:
        checkpoint._DUE = log_due  # type: ignore[misc]
    if not heart:
        keeper.Keeper._beat = lambda self: None  # type: ignore[method-assign]
    return SqliteTransport.from_url(url)
