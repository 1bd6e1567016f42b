"""A capability that a transport lacks is an error that names the transports that have it."""

from __future__ import annotations

from neuralcore.messaging.errors import Unsupported

__all__ = ["missing"]


def missing(capability: str, detail: str, *, called: str | None = None) -> Unsupported:
    """``called``: the user's word for it, where that is another."""
    from neuralcore.messaging.registry import schemes_with  # searches everything that is installed

    return Unsupported(called or capability, schemes_with(capability), detail)
