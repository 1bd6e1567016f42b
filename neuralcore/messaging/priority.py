"""How urgent a message is: 0 to 255, lower first."""

from __future__ import annotations

from enum import IntEnum

from neuralcore.messaging.errors import PriorityOutOfRange

__all__ = ["Priority", "check_priority"]


class Priority(IntEnum):
    """The named priorities; any integer from 0 to 255 will do."""

    CRITICAL = 0
    HIGH = 25
    NORMAL = 50
    LOW = 75
    BACKGROUND = 100


def check_priority(priority: object) -> int:
    """The priority as a plain integer. Raises PriorityOutOfRange."""
    if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= 255:
        raise PriorityOutOfRange(priority)
    return int(priority)
