"""Everything that NeuralCore raises on purpose.

::

    NeuralCoreError
    ├── BusError
    │   ├── NotStarted            used before start()
    │   ├── Closed                used after close()
    │   ├── LoopClosed            its event loop is gone
    │   └── Forked                it was started before the process forked
    ├── ChannelError
    │   ├── InvalidChannelName    (also ValueError)
    │   ├── UnknownChannel
    │   └── ChannelConflict
    ├── PublishError
    │   ├── ChannelFull           carries the refused message
    │   │   └── WouldDeadlock     a handler fills the mailbox that only it drains
    │   ├── NoSubscribers
    │   ├── PriorityOutOfRange    (also ValueError)
    │   ├── PayloadTooLarge
    │   ├── PublishUnknown        the transport's answer never came
    │   ├── TransactionUnknown    the same, of several publishes and the end of a message
    │   ├── PublishManyFailed     some of many
    │   └── EncodeError
    ├── HandlerError
    │   ├── BadHandler            (also TypeError) at subscribe time
    │   ├── HandlerTimeout        (also TimeoutError)
    │   └── DecodeError
    ├── RequestError
    │   ├── RequestTimeout        (also TimeoutError)
    │   ├── RequestFailed         the responder raised
    │   └── NotARequest
    ├── SettlementError
    │   ├── AlreadySettled
    │   └── LeaseLost
    └── TransportError
        ├── UnknownScheme
        ├── MissingExtra
        ├── Unsupported
        └── Unavailable
            └── NotStored         of this commit nothing has happened

Every error keeps what its message was made of as attributes, and survives pickling and copying.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuralcore._core import Message

__all__ = [
    "AlreadySettled",
    "BadHandler",
    "BusError",
    "ChannelConflict",
    "ChannelError",
    "ChannelFull",
    "Closed",
    "DecodeError",
    "EncodeError",
    "Forked",
    "HandlerError",
    "HandlerTimeout",
    "InvalidChannelName",
    "LeaseLost",
    "LoopClosed",
    "MissingExtra",
    "NeuralCoreError",
    "NoSubscribers",
    "NotARequest",
    "NotStarted",
    "NotStored",
    "PayloadTooLarge",
    "PriorityOutOfRange",
    "PublishError",
    "PublishManyFailed",
    "PublishUnknown",
    "RequestError",
    "RequestFailed",
    "RequestTimeout",
    "SettlementError",
    "TransactionUnknown",
    "TransportError",
    "Unavailable",
    "UnknownChannel",
    "UnknownScheme",
    "Unsupported",
    "WouldDeadlock",
]


class NeuralCoreError(Exception):
    """The root of the tree."""

    def _fields(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self._fields())


def _rebuild(cls: type[NeuralCoreError], args: tuple[Any, ...], fields: dict[str, Any]) -> NeuralCoreError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(fields)
    return error


def _listed(names: Sequence[str], empty: str = "none") -> str:
    return ", ".join(names) if names else empty


# --- the bus ---------------------------------------------------------------------------------------------------------


class BusError(NeuralCoreError):
    """The bus is not in a state to do this."""


class NotStarted(BusError):
    def __init__(self, what: str = "the bus") -> None:
        super().__init__(f"{what} is not started: use `async with MessageBus() as bus`, or `await bus.start()` first")
        self.what = what


class Closed(BusError):
    def __init__(self, what: str = "the bus") -> None:
        super().__init__(f"{what} is closed and takes nothing new; make a new one")
        self.what = what


class LoopClosed(BusError):
    def __init__(self, what: str = "the bus") -> None:
        super().__init__(
            f"the event loop that {what} belongs to is closed; "
            "close the bus before its loop ends, and make a new one in the new loop"
        )
        self.what = what


class Forked(BusError):
    def __init__(self, what: str = "the bus") -> None:
        super().__init__(
            f"{what} was started before this process was forked, and runs in its parent only: make a new one here"
        )
        self.what = what


# --- channels --------------------------------------------------------------------------------------------------------


class ChannelError(NeuralCoreError):
    """Something about a channel, before any message is involved."""


class InvalidChannelName(ChannelError, ValueError):
    def __init__(self, name: object, reason: str) -> None:
        super().__init__(f"invalid channel name {_short(name)}: {reason}")
        self.name = name
        self.reason = reason


class UnknownChannel(ChannelError):
    def __init__(self, channel: str, near: Sequence[str] = ()) -> None:
        hint = f"did you mean {' or '.join(repr(name) for name in near)}? Otherwise " if near else ""
        super().__init__(
            f"channel {channel!r} does not exist: {hint}"
            "create it with create_channel(), or let the bus create channels with auto_create=True"
        )
        self.channel = channel
        self.near = tuple(near)


class ChannelConflict(ChannelError):
    """A channel exists and cannot become what was asked."""

    def __init__(self, channel: str, reasons: Sequence[str]) -> None:
        super().__init__(f"channel {channel!r} cannot be changed to this configuration: {'; '.join(reasons)}")
        self.channel = channel
        self.reasons = tuple(reasons)


# --- publishing ------------------------------------------------------------------------------------------------------


class PublishError(NeuralCoreError):
    """A message was not published, or it is not known whether it was."""


class ChannelFull(PublishError):
    """No room, and the overflow policy or a publish without waiting refuses.

    ``message`` is what was refused, where there is one; it does not survive pickling.
    """

    def __init__(self, channel: str, message: Message | None = None) -> None:
        super().__init__(self._text(channel))
        self.channel = channel
        self.message = message

    def _text(self, channel: str) -> str:
        return (
            f"channel {channel!r} is full and refuses: try later, raise the capacity, "
            "add concurrency, or choose overflow='block', 'drop_new' or 'drop_old'"
        )

    def _fields(self) -> dict[str, Any]:
        return {**self.__dict__, "message": None}


class WouldDeadlock(ChannelFull):
    def _text(self, channel: str) -> str:
        return (
            f"a handler published to {channel!r} into the full mailbox that only it drains, and would wait for itself: "
            "raise the capacity or the concurrency, or choose another overflow policy"
        )


class NoSubscribers(PublishError):
    def __init__(self, channel: str) -> None:
        super().__init__(
            f"nobody subscribes to channel {channel!r}: subscribe first, or publish without mandatory=True"
        )
        self.channel = channel


class PriorityOutOfRange(PublishError, ValueError):
    def __init__(self, priority: object) -> None:
        super().__init__(f"priority {priority!r} is not an integer from 0 (most urgent) to 255")
        self.priority = priority


class PayloadTooLarge(PublishError):
    def __init__(self, channel: str, size: int, limit: int) -> None:
        super().__init__(
            f"a payload of {size} bytes is above the limit of {limit} of channel {channel!r}: "
            "send a reference instead, or raise max_payload"
        )
        self.channel = channel
        self.size = size
        self.limit = limit


class PublishUnknown(PublishError):
    """The transport's answer never came; the message may be stored."""

    def __init__(self, id: str) -> None:
        super().__init__(
            f"it is not known whether message {id} was stored: publish it again with message_id={id!r}, "
            "which stores it once where deduplication is declared"
        )
        self.id = id


class TransactionUnknown(PublishError):
    """The end of a transaction was never answered; all of it may have happened, or nothing."""

    def __init__(self, ids: Sequence[str], reason: str) -> None:
        super().__init__(
            f"it is not known whether the transaction that publishes {len(ids)} messages happened ({reason}): "
            "look for one of them before it is done again"
        )
        self.ids = tuple(ids)
        self.reason = reason


class PublishManyFailed(PublishError):
    """Some items of a ``publish_many`` failed; the others went through.

    ``results`` has one id (or None) per item, ``errors`` maps the indices of the failed ones to their exceptions.
    """

    def __init__(self, results: Sequence[str | None], errors: Mapping[int, BaseException]) -> None:
        index, first = next(iter(sorted(errors.items())), (None, None))
        super().__init__(
            f"{len(errors)} of {len(results)} messages were not published; "
            f"the first is item {index}: {type(first).__name__}: {first}"
        )
        self.results = tuple(results)
        self.errors = dict(errors)


class EncodeError(PublishError):
    def __init__(self, content_type: str, reason: str) -> None:
        super().__init__(f"the payload cannot be encoded as {content_type}: {reason}")
        self.content_type = content_type
        self.reason = reason


# --- handlers --------------------------------------------------------------------------------------------------------


class HandlerError(NeuralCoreError):
    """A handler, or what it was to be given, is at fault."""


class BadHandler(HandlerError, TypeError):
    """Raised by ``subscribe``; ``handler`` is the name of the function at fault, where it is one."""

    def __init__(self, reason: str, handler: str | None = None) -> None:
        super().__init__(f"{handler} cannot be a handler: {reason}" if handler else reason)
        self.reason = reason
        self.handler = handler


class HandlerTimeout(HandlerError, TimeoutError):
    def __init__(self, handler: str, timeout: float) -> None:
        super().__init__(f"{handler} took longer than its timeout of {timeout:g} s and was cancelled")
        self.handler = handler
        self.timeout = timeout


class DecodeError(HandlerError):
    """A body or payload is not what its content type or the handler's annotation says. Never retried."""

    def __init__(self, content_type: str, reason: str) -> None:
        super().__init__(f"cannot decode {_short_text(content_type)}: {reason}")
        self.content_type = content_type
        self.reason = reason


# --- requests --------------------------------------------------------------------------------------------------------


class RequestError(NeuralCoreError):
    """A request got no usable answer."""


class RequestTimeout(RequestError, TimeoutError):
    def __init__(self, channel: str, timeout: float) -> None:
        super().__init__(f"no reply to the request on {channel!r} within {timeout:g} s; a later one is dropped")
        self.channel = channel
        self.timeout = timeout


class RequestFailed(RequestError):
    """The responder raised: ``type`` and ``text`` of its exception."""

    def __init__(self, type: str, text: str) -> None:
        super().__init__(f"the responder failed with {type}: {text}")
        self.type = type
        self.text = text


class NotARequest(RequestError):
    def __init__(self, channel: str = "", id: str = "") -> None:
        super().__init__(f"{_which(channel, id)} asks for no reply: check message.reply_to before replying")
        self.channel = channel
        self.id = id


# --- settlement ------------------------------------------------------------------------------------------------------


class SettlementError(NeuralCoreError):
    """A delivery cannot be settled this way."""


class AlreadySettled(SettlementError):
    def __init__(self, channel: str = "", id: str = "") -> None:
        super().__init__(f"{_which(channel, id)} is settled already: settle each delivery once")
        self.channel = channel
        self.id = id


class LeaseLost(SettlementError):
    def __init__(self, channel: str = "", id: str = "") -> None:
        super().__init__(
            f"the lease of {_which(channel, id)} was lost, and another consumer may have it: "
            "check message.lease_lost in long handlers, or raise max_hold"
        )
        self.channel = channel
        self.id = id


# --- transports ------------------------------------------------------------------------------------------------------


class TransportError(NeuralCoreError):
    """A transport is missing, unfit, or not reachable."""


class UnknownScheme(TransportError):
    """``pip`` is the command that would add it, or None when nobody is known to offer it."""

    def __init__(self, scheme: str, installed: Sequence[str] = (), pip: str | None = None) -> None:
        todo = pip or "install the distribution that offers it in the entry-point group neuralcore.transports"
        super().__init__(f"no transport for {scheme}:// (installed: {_listed(installed)}): {todo}")
        self.scheme = scheme
        self.installed = tuple(installed)
        self.pip = pip


class MissingExtra(TransportError):
    """A package that an optional part needs is not installed."""

    def __init__(self, package: str, pip: str) -> None:
        super().__init__(f"the package {package!r} is not installed: {pip}")
        self.package = package
        self.pip = pip


class Unsupported(TransportError):
    """The transport lacks a capability; ``transports`` names those that have it."""

    def __init__(self, capability: str, transports: Sequence[str] = (), detail: str = "") -> None:
        where = f"; transports that have it: {_listed(transports)}" if transports else ""
        super().__init__(f"this transport does not offer {capability}{f' ({detail})' if detail else ''}{where}")
        self.capability = capability
        self.transports = tuple(transports)
        self.detail = detail


class Unavailable(TransportError):
    """The broker or store cannot be reached now."""

    def __init__(self, transport: str, reason: str = "") -> None:
        super().__init__(self._told(transport, reason))
        self.transport = transport
        self.reason = reason

    @staticmethod
    def _told(transport: str, reason: str) -> str:
        return f"{transport} is not available{f': {reason}' if reason else ''}; check that it runs, then retry"


class NotStored(Unavailable):
    """A commit of which nothing has happened, for certain: whoever published may simply try again."""

    @staticmethod
    def _told(transport: str, reason: str) -> str:
        return f"{transport} stored nothing{f': {reason}' if reason else ''}; it is safe to retry"


def _which(channel: str, id: str) -> str:
    return f"message {id} on {channel!r}" if id or channel else "the message"


def _short(value: object, limit: int = 80) -> str:
    return _short_text(repr(value), limit)


def _short_text(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
