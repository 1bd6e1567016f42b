"""Middleware: code around every publish and every handler call of a bus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuralcore._core import Message

__all__ = [
    "BatchHandle",
    "Handle",
    "Middleware",
    "Publication",
    "Publish",
    "check_middleware",
    "compose_batch",
    "compose_handle",
    "compose_publish",
]


@dataclass(slots=True)
class Publication:
    """One publish on its way to the transport. Middleware may change it in place, or pass on a copy."""

    channel: str
    payload: Any
    _: KW_ONLY
    priority: int | None = None
    headers: Mapping[str, str] | None = None
    key: str | None = None
    ttl: float | None = None
    delay: float | None = None
    not_before: float | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    content_type: str | None = None
    message_id: str | None = None
    idempotency_key: str | None = None
    mandatory: bool = False

    def replace(self, **changes: Any) -> Publication:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def with_headers(self, **headers: str) -> Publication:
        """A copy with headers added; write ``-`` as ``_``."""
        added = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, headers={**(self.headers or {}), **added})

    def options(self) -> dict[str, Any]:
        """What was asked for beyond channel and payload, as keyword arguments of a publish."""
        values = ((name, getattr(self, name)) for name in _OPTIONS)
        return {name: value for name, value in values if value is not None and value is not False}


_OPTIONS = tuple(field.name for field in fields(Publication) if field.name not in ("channel", "payload"))

Publish = Callable[[Publication], Awaitable[str | None]]
Handle = Callable[["Message"], Awaitable[Any]]
BatchHandle = Callable[[list["Message"]], Awaitable[Any]]


class Middleware:
    """Override what you need; what is not overridden costs nothing.

    The first one given to ``bus.use`` is the outermost. Not calling ``proceed`` drops the publish (the publisher gets
    None) or skips the handler (the message is acked).
    """

    async def publish(self, publication: Publication, proceed: Publish) -> str | None:
        return await proceed(publication)

    async def handle(self, message: Message, proceed: Handle) -> Any:
        """Around the handler; what it raises fails the delivery, what it returns is the reply."""
        return await proceed(message)

    async def handle_batch(self, messages: list[Message], proceed: BatchHandle) -> Any:
        """The same around a ``batch=`` handler."""
        return await proceed(messages)


def check_middleware(given: object) -> None:
    """Raises TypeError."""
    if not isinstance(given, Middleware):
        named = f"the class {given.__name__}, so write {given.__name__}()" if isinstance(given, type) else repr(given)
        raise TypeError(f"middleware is an instance of a subclass of Middleware; got {named}")


def compose_publish(middlewares: Sequence[Middleware], final: Publish) -> Publish:
    """One callable through every middleware that overrides ``publish``; ``final`` itself when none does."""
    for middleware in _overriding(middlewares, "publish"):
        final = _around(middleware.publish, final)
    return final


def compose_handle(middlewares: Sequence[Middleware], final: Handle) -> Handle:
    for middleware in _overriding(middlewares, "handle"):
        final = _around(middleware.handle, final)
    return final


def compose_batch(middlewares: Sequence[Middleware], final: BatchHandle) -> BatchHandle:
    for middleware in _overriding(middlewares, "handle_batch"):
        final = _around(middleware.handle_batch, final)
    return final


def _around(method: Callable[[Any, Any], Awaitable[Any]], proceed: Any) -> Any:
    """By position, so that an override may call its parameters what it likes."""
    return lambda what: method(what, proceed)


def _overriding(middlewares: Sequence[Middleware], method: str) -> list[Middleware]:
    """Innermost first."""
    inherited = getattr(Middleware, method)
    return [m for m in reversed(middlewares) if getattr(type(m), method, inherited) is not inherited]
