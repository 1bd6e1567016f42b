"""What a channel is configured to be."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, get_args

from neuralcore.messaging.names import validate_channel
from neuralcore.messaging.priority import Priority, check_priority

__all__ = ["ChannelConfig", "Overflow", "RateLimit", "Retention"]

Overflow = Literal["block", "drop_new", "drop_old", "reject"]
"""What a full mailbox or store does with one message more."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``rate`` messages a second on average, and at most ``burst`` at once."""

    rate: float
    burst: float

    def __post_init__(self) -> None:
        _check_positive(self, "rate")
        _check_positive(self, "burst")
        if self.burst < 1:
            raise ValueError(f"RateLimit.burst must be at least 1, or no message ever passes; got {self.burst!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long a durable transport keeps messages that every group has settled, or that no group wants yet."""

    age: float | None = None
    """Seconds."""
    count: int | None = None
    bytes: int | None = None

    def __post_init__(self) -> None:
        _check_positive(self, "age", optional=True)
        _check_count(self, "count")
        _check_count(self, "bytes")
        if self.age is None and self.count is None and self.bytes is None:
            raise ValueError("Retention needs at least one of age, count and bytes")


@dataclass(frozen=True, slots=True)
class ChannelConfig:
    """The configuration of one channel; what is None follows the bus or the transport."""

    name: str
    _: KW_ONLY
    priority: int = Priority.NORMAL
    """Of messages published without one."""
    capacity: int | None = None
    """Messages that one mailbox holds, or the store where it is bounded."""
    overflow: Overflow | None = None
    ttl: float | None = None
    """Seconds after which an unhandled message expires, unless its publisher says otherwise."""
    isolate: bool = False
    """In process, give every receiver a deep copy of the payload."""
    max_payload: int | None = None
    """Bytes of an encoded payload."""
    dead_letter: str | Literal[False] | None = None
    """The channel for dead letters: None for ``_dlq.<name>``, False to drop them."""
    rate_limit: RateLimit | None = None
    retention: Retention | None = None
    dedup_window: float | None = None
    """Seconds in which a message with a known id or idempotency key is stored only once."""

    def __post_init__(self) -> None:
        validate_channel(self.name, internal=True)
        check_priority(self.priority)
        _check_count(self, "capacity")
        if self.overflow is not None and self.overflow not in get_args(Overflow):
            raise ValueError(
                f"ChannelConfig.overflow must be one of {', '.join(get_args(Overflow))}; got {self.overflow!r}"
            )
        _check_positive(self, "ttl", optional=True)
        _check_type(self, "isolate", bool)
        _check_count(self, "max_payload")
        self._check_dead_letter()
        _check_type(self, "rate_limit", RateLimit, type(None))
        _check_type(self, "retention", Retention, type(None))
        _check_positive(self, "dedup_window", optional=True)

    def _check_dead_letter(self) -> None:
        if self.dead_letter is None or self.dead_letter is False:
            return
        if not isinstance(self.dead_letter, str):
            raise TypeError(
                f"ChannelConfig.dead_letter must be a channel's name, False or None; got {self.dead_letter!r}"
            )
        if validate_channel(self.dead_letter, internal=True) == self.name:
            raise ValueError(f"ChannelConfig.dead_letter must be another channel than {self.name!r} itself")


def _field(owner: object, name: str) -> str:
    return f"{type(owner).__name__}.{name}"


def _check_positive(owner: object, name: str, *, optional: bool = False) -> None:
    value: Any = getattr(owner, name)
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{_field(owner, name)} must be a number; got {value!r}")
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{_field(owner, name)} must be positive and finite; got {value!r}")


def _check_count(owner: object, name: str) -> None:
    value: Any = getattr(owner, name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{_field(owner, name)} must be an integer; got {value!r}")
    if value < 1:
        raise ValueError(f"{_field(owner, name)} must be at least 1; got {value!r}")


def _check_type(owner: object, name: str, *types: type) -> None:
    value: Any = getattr(owner, name)
    if not isinstance(value, types):
        wanted = " or ".join("None" if t is type(None) else t.__name__ for t in types)
        raise TypeError(f"{_field(owner, name)} must be {wanted}; got {value!r}")
