"""What an error of a transport means: no, or not now."""

from __future__ import annotations

from neuralcore.messaging.errors import NeuralCoreError, Unavailable

__all__ = ["refuses"]


def refuses(error: Exception) -> bool:
    """It understood what it was asked for, and asking again is no use. Anything else may pass, and is tried again."""
    return isinstance(error, (NeuralCoreError, TypeError, ValueError)) and not isinstance(error, Unavailable)
