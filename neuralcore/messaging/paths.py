"""What stands between ``publish`` and the mailboxes, and between these and a handler, compiled once per configuration.

Nothing does by default: then there is no path at all, and the core publishes by itself.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from neuralcore._core import Clock, Message, TokenBucket
from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.codec import Codec
from neuralcore.messaging.errors import ChannelFull, PayloadTooLarge
from neuralcore.messaging.middleware import (
    Middleware,
    Publication,
    Publish,
    compose_batch,
    compose_handle,
    compose_publish,
)

__all__ = ["Guard", "Originals", "handle_path", "publish_path"]

_CODEC = Codec()

Path = Callable[..., Awaitable[str | None]]


class Guard:
    """The size limit, rate limit and isolation of one channel."""

    def __init__(self, config: ChannelConfig, clock: Clock) -> None:
        self._config = config
        limit = config.rate_limit
        self._bucket = None if limit is None else TokenBucket(clock, limit.rate, limit.burst)

    @property
    def idle(self) -> bool:
        """There is nothing to guard."""
        return self._bucket is None and self._config.max_payload is None and not self._config.isolate

    async def admit(self, payload: Any, content_type: str | None = None) -> Any:
        """The payload to publish, once the rate limit allows it. Raises PayloadTooLarge, EncodeError."""
        self._check_size(payload, content_type)
        if self._bucket is not None:
            wait = self._bucket.take()
            while wait:
                await asyncio.sleep(wait)
                wait = self._bucket.take()
        return self._own(payload)

    def admit_nowait(self, payload: Any, content_type: str | None = None) -> Any:
        """The same for a publisher that cannot wait. Raises ChannelFull when the rate limit is reached."""
        self._check_size(payload, content_type)
        if self._bucket is not None and self._bucket.take() > 0:
            raise ChannelFull(self._config.name)
        return self._own(payload)

    def _own(self, payload: Any) -> Any:
        return copy.deepcopy(payload) if self._config.isolate else payload

    def _check_size(self, payload: Any, content_type: str | None) -> None:
        """Only a channel with a limit pays for an encoding that nobody else needs in process."""
        limit = self._config.max_payload
        if limit is not None:
            _, body = _CODEC.encode(payload, content_type)
            if len(body) > limit:
                raise PayloadTooLarge(self._config.name, len(body), limit)


def publish_path(channel: str, enter: Publish, guard: Guard, middleware: Sequence[Middleware]) -> Path | None:
    """The path of a channel that ends in ``enter``, or None when it needs none."""
    steps = compose_publish(middleware, enter)
    if steps is enter and guard.idle:
        return None

    async def path(payload: Any, **options: Any) -> str | None:
        return await steps(Publication(channel, payload, **options))

    return path


def handle_path(call: Callable[[Any], Any], *, batch: int, middleware: Sequence[Middleware]) -> Callable[[Any], Any]:
    """What a pump calls: the compiled handler itself, or that inside what the bus was given to put around it."""

    async def last(what: Any) -> Any:
        result = call(what)
        return await result if inspect.isawaitable(result) else result

    compose: Callable[..., Callable[[Any], Any]] = compose_batch if batch else compose_handle
    steps = compose(middleware, last)
    return call if steps is last else steps


class Originals(dict[Message, Any]):
    """The payloads of messages whose receivers have copies: the next attempt and the dead letter begin with these."""

    def lend(self, message: Message) -> None:
        """Give its receiver a copy of its own."""
        original = message.payload
        message._set_payload(copy.deepcopy(original))
        self[message] = original

    def take_back(self, message: Message) -> None:
        """It goes on without that receiver, so what it did to its copy is forgotten."""
        if message in self:
            message._set_payload(self.pop(message))

    def around(self, call: Callable[[Any], Any], channels: Callable[[], frozenset[str]]) -> Callable[[Any], Any]:
        """A handler whose messages of these channels are lent to it."""

        async def isolated(what: Message | list[Message]) -> Any:
            names = channels()
            messages = [m for m in (what if isinstance(what, list) else (what,)) if m.channel in names]
            try:
                for message in messages:
                    self.lend(message)
                result = call(what)
                result = await result if inspect.isawaitable(result) else result
            except BaseException:
                for message in messages:
                    self.take_back(message)
                raise
            for message in messages:
                self.pop(message, None)
            return result

        return isolated
