"""The contract between the bus and what carries its messages.

Batch-first and lease-based: the bus pulls batches of deliveries, and answers with batches of settlements. A transport
carries envelopes and never looks into their bodies. All coroutine methods run on the loop that opened the transport.

A transport is complete when `neuralcore conformance URL` says so; see docs/writing-a-transport.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import Enum
from typing import Any, ClassVar, Literal, NoReturn, Protocol

import msgspec

from neuralcore._core import Clock
from neuralcore.messaging.channel import ChannelConfig

__all__ = [
    "Capabilities",
    "ChannelRef",
    "CommitResult",
    "Consumer",
    "Cursor",
    "Delivery",
    "Demand",
    "Envelope",
    "Group",
    "GroupRef",
    "Health",
    "Inbox",
    "Interest",
    "Outcome",
    "Page",
    "PublishStatus",
    "Runtime",
    "SettleStatus",
    "Settlement",
    "StoreStats",
    "Transaction",
    "Transport",
]

Cursor = Literal["new", "beginning"] | str | datetime
"""Where reading starts: the next message, the oldest kept one, a message id, or a wall-clock time (aware)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a transport promises beyond the mandatory.

    Mandatory are intact delivery, isolation, settlement after the handler, redelivery.
    """

    in_process: bool = False
    """The bus's own mailboxes are the transport: payloads by reference, no envelopes, no leases."""
    durable: bool = False
    """A publish that returned survives the client's death and the broker's restart, as configured."""
    multi_process: bool = False
    groups: bool = False
    shared_work: bool = False
    """A group's messages wait for whichever member is idle. Without it, members keep what was dealt out to them."""
    broadcast: bool = False
    priorities: bool = False
    """Fetch answers the most urgent messages first."""
    bands: bool = False
    """A channel can be given priorities, by ``ChannelConfig.bands``."""
    keys: bool = False
    """Messages of one key and priority in one group are handled in order, one at a time, across all members."""
    delay: bool = False
    dedup: Literal["store", "owner", "none"] = "none"
    seek_id: bool = False
    seek_time: bool = False
    browse: bool = False
    atomic_commit: bool = False
    """Publishes and settlements of one commit happen together or not at all."""
    bounded: bool = False
    """A channel's capacity and overflow policy are enforced by the store."""
    retention: bool = False
    request_reply: bool = False
    transactions: Literal["database", "messages", "none"] = "none"
    """Several publishes, and the end of a message, can happen together or not at all; with ``database`` also together
    with an application's own rows, in the same database."""
    max_payload: int | None = None
    """Bytes of one body; None when there is no limit of the transport's own."""

    def names(self) -> tuple[str, ...]:
        """The names of everything declared."""
        return tuple(f.name for f in fields(self) if self.offers(f.name))

    def offers(self, need: str) -> bool:
        """``need``: a name, or of what comes in kinds also ``name=kind``."""
        name, _, wanted = need.partition("=")
        offered = getattr(self, name)
        return offered == wanted if wanted else offered not in (False, None, "none")


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A message on the wire: attributes beside the payload's bytes."""

    id: str
    channel: str
    body: bytes
    content_type: str = "application/json"
    priority: int = 50
    timestamp_ns: int = 0
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    key: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expires_at_ns: int | None = None
    """Wall clock."""
    delay_ns: int = 0
    """Not to be delivered before this much time has passed on a clock that does not jump."""
    not_before_ns: int | None = None
    """Not to be delivered before this wall-clock time."""
    dedup_key: str | None = None
    """Two envelopes of one channel with one dedup key (default: the id) inside the window are one message."""
    replay: int = 0
    """Which replay of the message this is: replays are never suppressed as duplicates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interest:
    """One subscription as a transport sees it."""

    id: int
    pattern: str
    start: Cursor | None = None
    """None: a channel's first group starts at the beginning, later ones at new."""
    hold_keys: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    """Competing consumers that share a durable position; without a name, this bus's broadcasts."""

    name: str | None


@dataclass(frozen=True, slots=True)
class ChannelRef:
    channel: str


@dataclass(frozen=True, slots=True)
class GroupRef:
    group: str
    channel: str | None = None
    """None: the group on every channel."""


@dataclass(frozen=True, slots=True)
class Demand:
    """How much a subscription can take now."""

    limit: int
    """0 pauses it."""
    more_urgent_than: int | None = None
    """Only messages of a lower rank than this."""


class Delivery(msgspec.Struct, eq=False, kw_only=True):
    """One hand-over of a message to one subscription, under a lease."""

    envelope: Envelope
    interest: int
    """The id of the Interest it answers."""
    attempt: int = 1
    suspect: bool = False
    """An earlier owner's lease was lost: it may be what killed that owner."""
    lease: object = None
    """The transport's own token."""
    lost: bool = False
    """Set by the bus once the transport has said so, perhaps before the fetch that brings it has returned."""


class Outcome(Enum):
    ACK = "ack"
    NACK = "nack"
    """One attempt more; again after ``delay_ns``."""
    RELEASE = "release"
    """Untouched, counts nothing."""
    ATTEMPT = "attempt"
    """Store one attempt more before the handler is called, and keep the lease: for suspects."""


class Settlement(msgspec.Struct, frozen=True):
    delivery: Delivery
    outcome: Outcome
    delay_ns: int = 0
    pass_key: bool = False
    """A nacked message with a key lets its successors pass instead of holding them."""
    after: int | None = None
    """Index of a publish of the same commit, a dead letter: skip this unless that one is stored or a duplicate."""


class PublishStatus(Enum):
    STORED = "stored"
    DUPLICATE = "duplicate"
    DROPPED = "dropped"
    """By the overflow policy drop_new."""
    REFUSED = "refused"
    """By the overflow policy reject, or for good: see ``CommitResult.reasons``."""
    FULL = "full"
    """Overflow policy block: not stored; the bus offers it again."""
    UNKNOWN = "unknown"


class SettleStatus(Enum):
    SETTLED = "settled"
    LEASE_LOST = "lease_lost"
    SKIPPED = "skipped"
    """The publish that it comes after was not stored; the lease is kept."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class CommitResult:
    """One status per item, in the order given."""

    published: Sequence[PublishStatus] = ()
    settled: Sequence[SettleStatus] = ()
    reasons: Mapping[int, str] = field(default_factory=dict)
    """Why a publish was refused, by its index."""


@dataclass(frozen=True, slots=True)
class Page:
    """What ``browse`` read, oldest first."""

    envelopes: Sequence[Envelope]
    next: str | None
    """The cursor to go on with; None at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """What a store holds for one channel."""

    depth: int = 0
    """Messages that some group has not settled."""
    in_flight: int = 0
    stored: int = 0
    lag: Mapping[str, int] = field(default_factory=dict)
    """Unsettled messages by group."""
    rejected_settlements: int = 0
    """Settlements that came after their lease was lost."""


@dataclass(frozen=True, slots=True)
class Health:
    ok: bool
    detail: str = ""


class Runtime(Protocol):
    """What the bus gives a transport. The events may be raised from any thread."""

    @property
    def clock(self) -> Clock: ...
    @property
    def bus_id(self) -> str: ...
    @property
    def executor(self) -> Executor: ...
    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter of the transport's own, shown in ``bus.metrics().transport``."""

    def gauge(self, name: str, value: float) -> None:
        """What something is now, shown in ``bus.metrics().transport_state``; seconds, bytes or a number."""

    def lost(self, deliveries: Sequence[Delivery]) -> None:
        """Their leases ran out or were taken."""

    def revoking(self, deliveries: Sequence[Delivery], deadline_ns: int) -> None:
        """They must be settled or released before the monotonic deadline."""

    def reconnected(self) -> None: ...
    def data_lost(self, channel: str, detail: str) -> None: ...
    def channels_changed(self) -> None: ...


class Consumer(ABC):
    """One group's reader: many subscriptions share it, so that a thousand channels are not a thousand connections."""

    @abstractmethod
    async def update(self, interests: Sequence[Interest]) -> None:
        """Replace the set of subscriptions; returns once the positions of new ones are fixed.

        A NeuralCoreError, TypeError or ValueError refuses what is new, and leaves the set as it was. Unavailable, and
        whatever else is raised, may pass: it is tried again, on this same consumer.
        """

    @abstractmethod
    async def fetch(self, demand: Mapping[int, Demand], timeout: float) -> Sequence[Delivery]:
        """Deliveries within the demand, most urgent first; waits up to ``timeout`` seconds for the first one.

        Cancelling it loses no delivery: what was leased comes with the next fetch or its lease expires.
        """

    async def seek(self, interest: int, position: Cursor) -> None:
        raise_unsupported("seek")

    async def close(self) -> None:
        """Stop reading; what was fetched stays leased until it is settled or expires."""


class Inbox(ABC):
    """Where this bus's replies arrive. Neither durable nor retried."""

    @property
    @abstractmethod
    def address(self) -> str:
        """``_inbox.<id>``: goes into ``reply_to``; the transport accepts it as a channel in ``commit``."""

    @abstractmethod
    async def fetch(self, timeout: float) -> Sequence[Envelope]: ...

    async def close(self) -> None:
        """Forget the address; later replies to it are dropped."""


class Transaction(ABC):
    """Several publishes, and the end of a message: all of it happens, or nothing."""

    @abstractmethod
    async def commit(self, publishes: Sequence[Envelope], settlements: Sequence[Settlement] = ()) -> CommitResult:
        """Inside it: nothing of this can be seen before it is committed. What is not known by then counts as stored and
        settled here, and the end of the block raises when it is not so.
        """


class Transport(ABC):
    """Carries envelopes. See the module's docstring."""

    scheme: ClassVar[str]
    capabilities: Capabilities

    @abstractmethod
    async def open(self, runtime: Runtime) -> None: ...

    async def declare(self, channel: ChannelConfig) -> None:
        """Make a channel known; again changes it live or raises ChannelConflict with the reasons.

        A NeuralCoreError, TypeError or ValueError refuses it, to be told to its users. Unavailable, and whatever else
        is raised, may pass: it is tried again, and everything waits for it.
        """

    async def remove(self, target: ChannelRef | GroupRef) -> None:
        raise_unsupported("remove")

    @abstractmethod
    async def commit(self, publishes: Sequence[Envelope], settlements: Sequence[Settlement] = ()) -> CommitResult:
        """Store and settle. Raises only when nothing is known of any item."""

    @abstractmethod
    async def consume(self, group: Group) -> Consumer:
        """The reader of a group, or of this bus's broadcasts."""

    async def inbox(self) -> Inbox:
        """Ready before it returns: a reply to a request sent afterwards arrives."""
        raise_unsupported("request/reply")

    def connection(self) -> AbstractAsyncContextManager[Any]:
        """A connection to the store's own database for the application's rows, safe beside the transport's."""
        raise_unsupported("transactions")

    def transaction(self, connection: Any | None) -> AbstractAsyncContextManager[Transaction]:
        """Committed at the end of the block, undone when it raises, with what was done on the connection: one that
        ``connection()`` gave.
        """
        raise_unsupported("transactions")

    async def browse(self, channel: str, start: Cursor, limit: int) -> Page:
        """Read without settling."""
        raise_unsupported("browse")

    async def channels(self) -> Sequence[str]:
        """The registry of channels, which patterns are resolved against."""
        return ()

    async def stats(self) -> Mapping[str, StoreStats]:
        """By channel."""
        return {}

    async def health(self) -> Health:
        return Health(True)

    @abstractmethod
    async def close(self) -> None:
        """Give up leases and connections. Harmless when repeated."""


def raise_unsupported(what: str) -> NoReturn:
    from neuralcore.messaging.errors import Unsupported

    raise Unsupported(what)
