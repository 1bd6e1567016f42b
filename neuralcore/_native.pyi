"""The core under the bus: message, mailbox, router and pump.

One surface, two implementations: ``neuralcore._native`` (Rust) and ``neuralcore.fallback`` (pure Python).
Nothing above imports either of them directly; ``neuralcore._core`` chooses one.

Times are integers in nanoseconds. "Wall" times count from the Unix epoch, "monotonic" ones from an arbitrary origin.
All objects may be used from any thread. Callbacks are called without any lock held.
"""

from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, Literal, NamedTuple, Protocol, final

IMPLEMENTATION: Final[Literal["native", "fallback"]]
DEBUG_BUILD: Final[bool]
HISTOGRAM_BOUNDS_NS: Final[tuple[int, ...]]
"""Upper bounds of the latency buckets: 1, 2.5, 5 per decade from 100 ns to 10 s; one more bucket is above them."""

Overflow = Literal["block", "drop_new", "drop_old", "reject"]

@final
class Clock:
    """The one source of time: the system's clocks, or a manual clock that a test advances."""

    def __new__(cls, *, manual: bool = False, time_ns: int = 0, monotonic_ns: int = 0) -> Clock: ...
    @property
    def manual(self) -> bool: ...
    def time_ns(self) -> int:
        """Wall clock."""
    def monotonic_ns(self) -> int:
        """A clock that never jumps."""
    def advance(self, ns: int) -> None:
        """Move both clocks of a manual clock forward. Raises ValueError on a system clock or a negative step."""
    def jump(self, ns: int) -> None:
        """Move only the wall clock of a manual clock, either way. Raises ValueError on a system clock."""

class Histogram(NamedTuple):
    count: int  # type: ignore[assignment]
    sum_ns: int
    buckets: tuple[int, ...]
    """Not cumulative; one entry per bound of HISTOGRAM_BOUNDS_NS and one above the last."""

class MailboxStats(NamedTuple):
    capacity: int
    queued: int
    parked: int
    """Waiting for the key of a message in flight."""
    delayed: int
    in_flight: int
    waiting: int
    """Publishers that wait for a slot."""
    delivered: int
    acked: int
    retried: int
    released: int
    dropped: int
    expired: int
    wait: Histogram
    """Sampled: from publish (or becoming due) to the handler."""
    handle: Histogram
    """Sampled: the handler's own time."""

class RouteStats(NamedTuple):
    published: int
    """Messages that at least one mailbox took."""
    unrouted: int
    dropped: int
    """Messages that no mailbox took because of its overflow policy."""
    refused: int
    """Publishes that raised: full, or no subscribers although mandatory."""
    publish: Histogram
    """Sampled: from the call to the entry into the mailboxes."""

class Settler(Protocol):
    """What a mailbox's messages and timers call: the bus's side of settlement. Verbs answer an awaitable."""

    def ack(self, message: Message, /) -> Awaitable[None]: ...
    def nack(self, message: Message, delay: float | None, /) -> Awaitable[None]: ...
    def reject(self, message: Message, reason: str, /) -> Awaitable[None]: ...
    def release(self, message: Message, /) -> Awaitable[None]: ...
    def reply(self, message: Message, payload: Any, /) -> Awaitable[None]: ...
    def transaction(self, message: Message, connection: Any | None, /) -> AbstractAsyncContextManager[Any]: ...
    def due(self, mailbox: Mailbox, monotonic_ns: int, /) -> None:
        """The mailbox wants ``promote()`` called at this time. Any thread; only when the earliest time changes."""
    def expired(self, message: Message, /) -> None:
        """Its expiry passed before a handler got it; the mailbox has given its slot back."""

@final
class Message:
    """One delivery of a message, immutable to handlers.

    Built by the core when it reaches a handler; built directly for messages that a transport fetched, and in tests.
    """

    def __new__(
        cls,
        channel: str,
        payload: Any,
        *,
        id: str,
        priority: int = 50,
        timestamp_ns: int = 0,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        expires_at_ns: int | None = None,
        content_type: str | None = None,
        attempt: int = 1,
        delivery: object = None,
    ) -> Message: ...
    @property
    def id(self) -> str: ...
    @property
    def channel(self) -> str: ...
    @property
    def payload(self) -> Any: ...
    @property
    def priority(self) -> int: ...
    @property
    def timestamp(self) -> float:
        """When it was published: wall clock, seconds."""
    @property
    def timestamp_ns(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]:
        """The publisher's headers, read-only; an empty mapping when there are none."""
    @property
    def key(self) -> str | None: ...
    @property
    def correlation_id(self) -> str | None: ...
    @property
    def reply_to(self) -> str | None: ...
    @property
    def expires_at(self) -> float | None:
        """Wall clock, seconds."""
    @property
    def expires_at_ns(self) -> int | None: ...
    @property
    def content_type(self) -> str | None: ...
    @property
    def attempt(self) -> int:
        """1 on the first delivery."""
    @property
    def delivery(self) -> object:
        """What the transport attached (its lease); None on the native transport."""
    @property
    def settled(self) -> bool: ...
    @property
    def lease_lost(self) -> bool:
        """True once another consumer may have the message: stop working on it."""
    def reply(self, payload: Any) -> Awaitable[None]:
        """Answer a request. Raises NotARequest when the message has no reply_to."""
    def ack(self) -> Awaitable[None]:
        """Settle as done. Raises AlreadySettled."""
    def nack(self, delay: float | None = None) -> Awaitable[None]:
        """Count a failed attempt and have it delivered again, after ``delay`` seconds or the subscription's back-off."""
    def reject(self, reason: str = "") -> Awaitable[None]:
        """Dead-letter it now."""
    def release(self) -> Awaitable[None]:
        """Give it back untouched: another consumer may have it, no attempt is counted."""
    def transaction(self, connection: Any | None = None) -> AbstractAsyncContextManager[Any]:
        """``async with message.transaction() as tx``: what is published by ``tx.publish`` and the end of this message,
        together, or nothing of it. With a connection, also with the rows that were changed on it: see ``bus.transaction``.

        Raises AlreadySettled, Unsupported; at its end LeaseLost when another consumer may have the message.
        """
    def _settle(self) -> bool:
        """Mark it settled; False when it already was. For settlers."""
    def _lose_lease(self) -> None: ...
    def _set_payload(self, payload: Any, /) -> None:
        """For the decoder of a transport's messages, before any handler has seen it."""

@final
class Mailbox:
    """A bounded priority FIFO with keys, delays and slots.

    Lower rank first, FIFO inside a rank. A slot is taken on entry and given back at ``ack``: messages in flight,
    parked or delayed keep theirs. A key in flight parks its later messages.
    """

    def __new__(
        cls,
        clock: Clock,
        settler: Settler,
        *,
        capacity: int,
        overflow: Overflow = "block",
        hold_keys: bool = True,
    ) -> Mailbox:
        """``hold_keys``: a message waiting for its retry keeps its key, so that its successors wait too.

        Raises ValueError for a capacity below 1 or an unknown overflow policy.
        """
    @property
    def capacity(self) -> int: ...
    @property
    def overflow(self) -> Overflow: ...
    @property
    def closed(self) -> bool: ...
    @property
    def settler(self) -> Settler: ...
    def configure(self, *, capacity: int | None = None, overflow: Overflow | None = None) -> None:
        """Change it live; publishers that wait for a slot are re-examined."""
    def offer(self, message: Message) -> None:
        """Enter a message past the capacity: for transports, which bound themselves by demand."""
    def take(self) -> Message | None:
        """The most urgent message that may be handled now, in flight from here on; None when there is none."""
    def ready(self) -> Awaitable[bool]:
        """Wait until ``take`` may have something. False once the mailbox is closed and empty."""
    def ack(self, message: Message) -> None:
        """It is done: give its slot and key back."""
    def retry(self, message: Message, delay_ns: int) -> None:
        """Deliver it again with ``attempt + 1``, behind its equals, after the delay; it keeps its slot."""
    def release(self, message: Message) -> None:
        """Back into the queue before its equals, untouched."""
    def promote(self) -> int | None:
        """Move what is due into the queue; the monotonic time of the next due message, or None."""
    def clear(self) -> list[Message]:
        """Take out and return all that is not in flight, most urgent first; their slots are free."""
    def close(self) -> None:
        """Accept nothing more; pumps end when it is empty.

        Publishers that wait for a slot go on without it, or are refused (``closed``) when the router is closed.
        """
    def depth(self) -> int:
        """Messages not in flight: queued, parked and delayed."""
    def depths(self) -> dict[int, int]:
        """Queued messages by rank; ranks without any are left out."""
    def most_relaxed(self) -> int | None:
        """The rank of the least urgent queued message."""
    def take_relaxed(self, rank: int) -> Message | None:
        """Take out the newest queued message of the least urgent rank, if that rank is above ``rank``; its slot is free."""
    def stats(self) -> MailboxStats: ...

@final
class Route:
    """The publish path of one channel: its defaults, its counters, its compiled list of mailboxes."""

    def __new__(
        cls,
        router: Router,
        channel: str,
        *,
        priority: int = 50,
        ttl_ns: int | None = None,
        path: Callable[..., Awaitable[str | None]] | None = None,
    ) -> Route: ...
    @property
    def channel(self) -> str: ...
    def configure(
        self,
        *,
        priority: int,
        ttl_ns: int | None,
        path: Callable[..., Awaitable[str | None]] | None,
    ) -> None:
        """Swap all three at once.

        With a ``path`` (middleware, tracing, checks) ``Router.publish`` answers ``path(payload, **options)``; the path
        ends in ``Route.publish``, which goes straight to the mailboxes.
        """
    def publish(
        self,
        payload: Any,
        *,
        priority: int | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        ttl: float | None = None,
        delay: float | None = None,
        not_before: float | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        content_type: str | None = None,
        message_id: str | None = None,
        idempotency_key: str | None = None,
        mandatory: bool = False,
    ) -> Awaitable[str | None]: ...
    def stats(self) -> RouteStats: ...

@final
class Router:
    """Finds the mailboxes of a channel (a table of exact names, a trie of patterns) and publishes into them.

    A publish enters at once when there is room everywhere; the awaitable is then already done. Otherwise it takes
    its slots in ascending mailbox order, keeps those it has, and enters only when it has all.
    """

    def __new__(
        cls,
        clock: Clock,
        *,
        missing: Callable[[str], Route],
        error: Callable[[str, str, object], BaseException],
        any_rank: bool = False,
        budget: int = 256,
    ) -> Router:
        """``missing(channel)`` makes (or refuses) the route of a channel used for the first time.

        ``error(kind, channel, detail)`` builds what is raised: kind is ``full`` (detail: the refused Message),
        ``deadlock`` (likewise: a handler published into the full mailbox that only its own workers drain),
        ``no_subscribers``, ``priority`` (detail: the number), ``idempotency`` (detail: the key; mailboxes remember none),
        ``many`` (detail: results and errors by index), ``loop_closed`` (all workers of the only
        mailbox were of loops that are closed), ``closed``.
        ``any_rank`` lifts the limit of 0 to 255 on priorities. Every ``budget``-th awaited publish yields once to the loop.
        """
    @property
    def id_prefix(self) -> str:
        """16 hexadecimal digits: random per router and new after fork."""
    def next_id(self) -> str:
        """32 hexadecimal digits: the prefix and a counter."""
    def publish(
        self,
        channel: str,
        payload: Any,
        *,
        priority: int | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        ttl: float | None = None,
        delay: float | None = None,
        not_before: float | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        content_type: str | None = None,
        message_id: str | None = None,
        idempotency_key: str | None = None,
        mandatory: bool = False,
    ) -> Awaitable[str | None]:
        """Publish; the awaitable yields the id, or None when an overflow policy dropped the message.

        ``ttl`` and ``delay`` are seconds, ``not_before`` is wall-clock seconds.
        """
    def publish_nowait(
        self,
        channel: str,
        payload: Any,
        *,
        priority: int | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        ttl: float | None = None,
        delay: float | None = None,
        not_before: float | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        content_type: str | None = None,
        message_id: str | None = None,
        idempotency_key: str | None = None,
        mandatory: bool = False,
    ) -> str | None:
        """Publish without waiting: a mailbox that would block refuses (``full``). Goes past the route's path."""
    def publish_many(self, items: Iterable[tuple[Any, ...]]) -> Awaitable[Sequence[str | None]]:
        """Publish ``(channel, payload[, priority[, options mapping]])`` items in order, waiting for room as needed.

        An item that is refused does not stop the others; the error then raised has ``add_note``-free fields set by
        ``error("many", "", (results, {index: exception}))``.
        """
    def attach(self, pattern: str, mailbox: Mailbox, *, group: str | None = None) -> None:
        """Route a pattern into a mailbox. Of one group's patterns that match a channel, the most specific one gets it."""
    def detach(self, pattern: str, mailbox: Mailbox) -> None: ...
    def match(self, channel: str) -> list[Mailbox]:
        """The mailboxes a message on this channel enters, in ascending mailbox order."""
    def add(self, route: Route) -> None: ...
    def remove(self, channel: str) -> None: ...
    def routes(self) -> dict[str, Route]: ...
    def close(self) -> None:
        """Refuse later publishes with ``error("closed", …)``, except through ``Route.publish``."""

@final
class Pump:
    """A worker's coroutine: takes from the mailbox, calls the handler, drives what it returns, settles, goes on.

    Run it as ``loop.create_task(pump)``. It ends when the mailbox is closed and empty, after ``stop()``, or when its
    task is cancelled (see ``throw``).
    """

    def __new__(
        cls,
        mailbox: Mailbox,
        handler: Callable[[Any], Any],
        *,
        failed: Callable[[Any, BaseException], Awaitable[None] | None],
        replied: Callable[[Message, Any], Awaitable[None] | None],
        settled: Callable[[Message, Any], None] | None = None,
        batch: int = 0,
        timeout: float | None = None,
        context: Context | None = None,
        budget: int = 256,
        slice_ns: int = 1_000_000,
        name: str = "pump",
    ) -> Pump:
        """``handler`` gets a Message, or with ``batch=n`` a list of 1 to n; it may return an awaitable, which is driven.

        Each call runs in a copy of ``context`` (default: the context at construction). After success the message is
        acked on the mailbox; before that ``replied`` is called when it has a reply_to (single messages only), and
        ``settled``, when given, instead of nothing (a transport queues its acknowledgement there). After an exception
        ``failed`` decides and settles on the mailbox (retry, release or ack), gets the Message or the list, and may return
        an awaitable, which is driven before the next message. Messages settled inside the handler are left out, except a
        single request: its requester may have to be told.
        """
    def stop(self, *, cancel: bool = False) -> None:
        """End after the current message; with ``cancel`` the task's next CancelledError releases it instead."""
    @property
    def current(self) -> Message | list[Message] | None: ...
    @property
    def timed_out(self) -> bool:
        """The CancelledError now travelling through the handler comes from ``timeout``."""
    def send(self, value: Any, /) -> Any: ...
    def throw(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
        /,
    ) -> Any:
        """CancelledError while a handler runs, out of that handler: by ``timeout``, ``failed(message, TimeoutError)`` and
        the pump goes on; after ``stop(cancel=True)``, the message is released and the pump ends cancelled; otherwise
        ``failed(message, CancelledError)`` and the pump ends cancelled (its owner starts another). KeyboardInterrupt and
        SystemExit release the message and propagate.
        """
    def close(self) -> None: ...
    def __await__(self) -> Generator[Any, Any]: ...
    @property
    def cr_await(self) -> object: ...
    @property
    def cr_code(self) -> CodeType | None: ...
    @property
    def cr_frame(self) -> FrameType | None: ...
    @property
    def cr_running(self) -> bool: ...
    __name__: str
    __qualname__: str

@final
class TokenBucket:
    """A rate limit: ``rate`` tokens a second, at most ``burst`` at once."""

    def __new__(cls, clock: Clock, rate: float, burst: float) -> TokenBucket:
        """Raises ValueError unless both are positive and finite."""
    def take(self, tokens: float = 1.0) -> float:
        """Take them and answer 0.0, or take nothing and answer the seconds until they would be there."""
