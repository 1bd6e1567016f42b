"""An immutable picture of what a bus has counted, taken by ``bus.metrics()``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from neuralcore._core import HISTOGRAM_BOUNDS_NS

if TYPE_CHECKING:
    from neuralcore._core import Histogram, MailboxStats, RouteStats

__all__ = ["BusMetrics", "ChannelMetrics", "Latency", "SubscriptionMetrics"]

_NS = 1e-9


@dataclass(frozen=True, slots=True)
class Latency:
    """A histogram of durations. Sampled: it says how long, not how often. Times are seconds."""

    count: int = 0
    sum_ns: int = 0
    buckets: tuple[int, ...] = (0,) * (len(HISTOGRAM_BOUNDS_NS) + 1)
    """Not cumulative: one per bound of ``bounds``, and one above the last."""

    @classmethod
    def of(cls, histogram: Histogram) -> Latency:
        return cls(histogram.count, histogram.sum_ns, tuple(histogram.buckets))

    @property
    def bounds(self) -> tuple[float, ...]:
        return tuple(bound * _NS for bound in HISTOGRAM_BOUNDS_NS)

    @property
    def mean(self) -> float | None:
        """None without samples."""
        return self.sum_ns * _NS / self.count if self.count else None

    def quantile(self, p: float) -> float | None:
        """The duration that a share ``p`` of the samples stays within, interpolated in its bucket.

        None without samples; beyond the last bound, that bound.
        """
        if not 0 <= p <= 1:
            raise ValueError(f"a quantile is between 0 and 1; got {p!r}")
        total = sum(self.buckets)
        if not total:
            return None
        rank, below, low = p * total, 0, 0
        for count, high in zip(self.buckets, HISTOGRAM_BOUNDS_NS, strict=False):
            if count and below + count >= rank:
                return (low + (high - low) * max(0.0, rank - below) / count) * _NS
            below, low = below + count, high
        return low * _NS

    def __add__(self, other: Latency) -> Latency:
        buckets = tuple(a + b for a, b in zip(self.buckets, other.buckets, strict=True))
        return Latency(self.count + other.count, self.sum_ns + other.sum_ns, buckets)

    def to_dict(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "mean": self.mean,
            "p50": self.quantile(0.5),
            "p99": self.quantile(0.99),
            "p999": self.quantile(0.999),
            "buckets": list(self.buckets),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelMetrics:
    """What publishers did on one channel."""

    published: int = 0
    """Messages that at least one mailbox, or the store, took."""
    unrouted: int = 0
    """Nobody listened."""
    dropped: int = 0
    """No mailbox took it, by its overflow policy."""
    refused: int = 0
    """The publish raised."""
    publish: Latency = field(default_factory=Latency)

    @classmethod
    def of(cls, stats: RouteStats) -> ChannelMetrics:
        return cls(
            published=stats.published,
            unrouted=stats.unrouted,
            dropped=stats.dropped,
            refused=stats.refused,
            publish=Latency.of(stats.publish),
        )

    def to_dict(self) -> dict[str, Any]:
        return _plain(self, _CHANNEL_COUNTS) | {"publish": self.publish.to_dict()}


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionMetrics:
    """What became of the messages of one mailbox: a group's on one pattern, or one broadcast subscriber's."""

    pattern: str
    name: str = ""
    group: str | None = None
    capacity: int = 0
    queued: int = 0
    parked: int = 0
    """Waiting for the key of a message in flight."""
    delayed: int = 0
    in_flight: int = 0
    waiting: int = 0
    """Publishers that wait for a slot."""
    delivered: int = 0
    acked: int = 0
    """Done with: handled, refused by the filter, or dead-lettered."""
    retried: int = 0
    released: int = 0
    dead_lettered: int = 0
    dropped: int = 0
    """Pushed out by more urgent ones, or not taken, by the overflow policy; or left when the subscription ended, on a
    transport that takes nothing back."""
    expired: int = 0
    depth_by_priority: Mapping[int, int] = field(default_factory=dict)
    """Queued messages by priority, the most urgent first; priorities without any are left out."""
    wait: Latency = field(default_factory=Latency)
    """From publish (or becoming due) to the handler."""
    handle: Latency = field(default_factory=Latency)
    """The handler's own time."""

    def __post_init__(self) -> None:
        _freeze(self, "depth_by_priority", sorted(self.depth_by_priority.items()))

    @classmethod
    def of(
        cls,
        stats: MailboxStats,
        depths: Mapping[int, int],
        *,
        pattern: str,
        name: str = "",
        group: str | None = None,
        dead_lettered: int = 0,
    ) -> SubscriptionMetrics:
        """From a mailbox's ``stats()`` and ``depths()``."""
        return cls(
            pattern=pattern,
            name=name,
            group=group,
            capacity=stats.capacity,
            queued=stats.queued,
            parked=stats.parked,
            delayed=stats.delayed,
            in_flight=stats.in_flight,
            waiting=stats.waiting,
            delivered=stats.delivered,
            acked=stats.acked,
            retried=stats.retried,
            released=stats.released,
            dead_lettered=dead_lettered,
            dropped=stats.dropped,
            expired=stats.expired,
            depth_by_priority=depths,
            wait=Latency.of(stats.wait),
            handle=Latency.of(stats.handle),
        )

    def plus(self, other: SubscriptionMetrics) -> SubscriptionMetrics:
        """The sum of two ended subscriptions of one pattern and group, nameless."""
        sums = {name: getattr(self, name) + getattr(other, name) for name in (*_COUNTERS, "wait", "handle")}
        return SubscriptionMetrics(pattern=self.pattern, group=self.group, **sums)

    @property
    def depth(self) -> int:
        """Messages waiting: queued, parked and delayed."""
        return self.queued + self.parked + self.delayed

    def to_dict(self) -> dict[str, Any]:
        return _plain(self, ("pattern", "name", "group", "capacity", *_SUBSCRIPTION_COUNTS)) | {
            "depth_by_priority": {str(rank): count for rank, count in self.depth_by_priority.items()},
            "wait": self.wait.to_dict(),
            "handle": self.handle.to_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BusMetrics:
    """A whole bus: its channels, its subscriptions, and the sums over them as properties."""

    channels: Mapping[str, ChannelMetrics] = field(default_factory=dict)
    subscriptions: tuple[SubscriptionMetrics, ...] = ()
    late_replies: int = 0
    """Replies that came after their request had timed out."""
    transport: Mapping[str, int] = field(default_factory=dict)
    """The transport's own counters."""
    transport_state: Mapping[str, float] = field(default_factory=dict)
    """What the transport says of itself now: its own gauges, in seconds, bytes, or numbers of what their names say."""

    def __post_init__(self) -> None:
        _freeze(self, "channels", sorted(self.channels.items()))
        _freeze(self, "transport", sorted(self.transport.items()))
        _freeze(self, "transport_state", sorted(self.transport_state.items()))
        object.__setattr__(self, "subscriptions", tuple(self.subscriptions))

    @property
    def published(self) -> int:
        return self._over_channels("published")

    @property
    def unrouted(self) -> int:
        return self._over_channels("unrouted")

    @property
    def refused(self) -> int:
        return self._over_channels("refused")

    @property
    def delivered(self) -> int:
        return self._over_subscriptions("delivered")

    @property
    def acked(self) -> int:
        """Also those that were dead-lettered."""
        return self._over_subscriptions("acked")

    @property
    def retried(self) -> int:
        return self._over_subscriptions("retried")

    @property
    def released(self) -> int:
        return self._over_subscriptions("released")

    @property
    def dead_lettered(self) -> int:
        return self._over_subscriptions("dead_lettered")

    @property
    def dropped(self) -> int:
        """Copies of messages that some mailbox did not keep."""
        return self._over_subscriptions("dropped")

    @property
    def expired(self) -> int:
        return self._over_subscriptions("expired")

    @property
    def in_flight(self) -> int:
        return self._over_subscriptions("in_flight")

    @property
    def depth(self) -> int:
        return self._over_subscriptions("depth")

    @property
    def depth_by_priority(self) -> Mapping[int, int]:
        sums: dict[int, int] = {}
        for subscription in self.subscriptions:
            for rank, count in subscription.depth_by_priority.items():
                sums[rank] = sums.get(rank, 0) + count
        return dict(sorted(sums.items()))

    @property
    def publish(self) -> Latency:
        return _total(channel.publish for channel in self.channels.values())

    @property
    def wait(self) -> Latency:
        return _total(subscription.wait for subscription in self.subscriptions)

    @property
    def handle(self) -> Latency:
        return _total(subscription.handle for subscription in self.subscriptions)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can carry it; times are seconds."""
        return {
            "totals": _plain(self, _TOTALS)
            | {
                "depth_by_priority": {str(rank): count for rank, count in self.depth_by_priority.items()},
                "publish": self.publish.to_dict(),
                "wait": self.wait.to_dict(),
                "handle": self.handle.to_dict(),
            },
            "channels": {name: channel.to_dict() for name, channel in self.channels.items()},
            "subscriptions": [subscription.to_dict() for subscription in self.subscriptions],
            "transport": dict(self.transport),
            "transport_state": dict(self.transport_state),
        }

    def _over_channels(self, name: str) -> int:
        return sum(getattr(channel, name) for channel in self.channels.values())

    def _over_subscriptions(self, name: str) -> int:
        return sum(getattr(subscription, name) for subscription in self.subscriptions)


_CHANNEL_COUNTS = ("published", "unrouted", "dropped", "refused")
_SUBSCRIPTION_COUNTS = (
    "depth",
    "queued",
    "parked",
    "delayed",
    "in_flight",
    "waiting",
    "delivered",
    "acked",
    "retried",
    "released",
    "dead_lettered",
    "dropped",
    "expired",
)
_COUNTERS = ("delivered", "acked", "retried", "released", "dead_lettered", "dropped", "expired")
_TOTALS = (
    "published",
    "unrouted",
    "refused",
    "delivered",
    "acked",
    "retried",
    "released",
    "dead_lettered",
    "dropped",
    "expired",
    "in_flight",
    "depth",
    "late_replies",
)


def _plain(owner: object, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(owner, name) for name in names}


def _freeze(owner: object, name: str, items: Iterable[tuple[Any, Any]]) -> None:
    object.__setattr__(owner, name, MappingProxyType(dict(items)))


def _total(latencies: Iterable[Latency]) -> Latency:
    return sum(latencies, Latency())
