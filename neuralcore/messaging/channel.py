"""What a channel is configured to be."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Literal, get_args

from neuralcore.messaging.checks import (
    MAX_COUNT,
    check_choice,
    check_count,
    check_dead_letter,
    check_positive,
    check_type,
)
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
        check_positive("RateLimit.rate", self.rate)
        check_positive("RateLimit.burst", self.burst)
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
        if self.age is not None:
            check_positive("Retention.age", self.age)
        if self.count is not None:
            check_count("Retention.count", self.count)
        if self.bytes is not None:
            check_count("Retention.bytes", self.bytes)
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
    """In process, give every handler and stream, at every attempt, a deep copy of the payload."""
    max_payload: int | None = None
    """Bytes of an encoded payload. In process too, where a channel with a limit encodes to measure: what cannot be
    encoded is refused with EncodeError."""
    dead_letter: str | Literal[False] | None = None
    """The channel for dead letters: None for ``_dlq.<name>``, False to drop them."""
    rate_limit: RateLimit | None = None
    retention: Retention | None = None
    dedup_window: float | None = None
    """Seconds in which a message with a known id or idempotency key is stored only once."""
    partitions: int | None = None
    """On Kafka: so many processes share one group's work. More later moves keys; fewer is refused."""
    replication: int | None = None
    """On Kafka: copies of each partition, when its topic is made."""
    create: bool | None = None
    """On Kafka: whether its topic may be made when it is not there."""
    bands: tuple[int, ...] | None = None
    """On Kafka: a topic for each band of priorities, the more urgent read first; the most urgent priority of each,
    ascending from 0, such as ``(0, 50, 100)``."""

    def __post_init__(self) -> None:
        validate_channel(self.name, internal=True)
        check_priority(self.priority)
        if self.capacity is not None:
            check_count("ChannelConfig.capacity", self.capacity, most=MAX_COUNT)
        if self.overflow is not None:
            check_choice("ChannelConfig.overflow", self.overflow, get_args(Overflow))
        if self.ttl is not None:
            check_positive("ChannelConfig.ttl", self.ttl)
        check_type("ChannelConfig.isolate", self.isolate, bool)
        if self.max_payload is not None:
            check_count("ChannelConfig.max_payload", self.max_payload)
        check_dead_letter("ChannelConfig.dead_letter", self.dead_letter, self.name)
        check_type("ChannelConfig.rate_limit", self.rate_limit, RateLimit, type(None))
        check_type("ChannelConfig.retention", self.retention, Retention, type(None))
        if self.dedup_window is not None:
            check_positive("ChannelConfig.dedup_window", self.dedup_window)
        for name in ("partitions", "replication"):
            value = getattr(self, name)
            if value is not None:
                check_count(f"ChannelConfig.{name}", value)
        check_type("ChannelConfig.create", self.create, bool, type(None))
        if self.bands is not None:
            _check_bands(self.bands)


def _check_bands(bands: tuple[int, ...]) -> None:
    check_type("ChannelConfig.bands", bands, tuple)
    for bound in bands:
        check_priority(bound)
    if len(bands) < 2 or bands[0] != 0 or list(bands) != sorted(set(bands)):
        raise ValueError(
            f"ChannelConfig.bands are the most urgent priorities of two bands or more, ascending from 0; got {bands!r}"
        )
