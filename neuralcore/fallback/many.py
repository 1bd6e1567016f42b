"""Many messages at once: those that follow each other on one plain channel enter under one lock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from neuralcore.fallback.message import IN_FLIGHT, Published
from neuralcore.fallback.steps import YIELD

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from neuralcore.fallback.message import Message
    from neuralcore.fallback.router import Direct, Router

__all__ = ["publish_many"]


async def publish_many(router: Router, items: Iterable[tuple[Any, ...]]) -> Sequence[str | None]:
    run = _Run(router)
    following = iter(items)
    while True:
        try:
            item = next(following)
        except StopIteration:
            break
        except BaseException:
            # What came before it is published.
            await run.enter()
            raise
        if not run.take(item):
            await run.enter()
            if not run.take(item):
                await run.publish(item)
    await run.enter()
    if run.errors:
        raise router._error("many", "", (run.results, run.errors))
    return run.results


class _Run:
    """Messages on one channel that have not entered yet, and what became of those before them."""

    __slots__ = ("_direct", "_entered", "_messages", "_router", "channel", "errors", "results")

    def __init__(self, router: Router) -> None:
        self._router = router
        self._direct: Direct | None = None
        self._entered = 0
        """Since the loop ran last."""
        self._messages: list[Message] = []
        self.channel: str | None = None
        self.results: list[str | None] = []
        self.errors: dict[int, BaseException] = {}

    def take(self, item: tuple[Any, ...]) -> bool:
        """False when the item does not belong to this run: it is no plain message, or not the same channel's."""
        router = self._router
        size = len(item) if type(item) is tuple else 0
        if not 2 <= size <= 3 or type(item[0]) is not str or len(self._messages) >= router._budget:
            return False
        if item[0] != self.channel:
            if self._messages:
                return False
            self._direct = router._direct.get(item[0])
            self.channel = item[0]
        if self._direct is None:
            return False
        rank = self._direct[0]._priority if size == 2 or item[2] is None else item[2]
        if type(rank) is not int or not router._low <= rank <= router._high:
            return False
        message = Published()
        message._id = router.next_id()
        message._channel = item[0]
        message._payload = item[1]
        message._rank = rank
        message._timestamp_ns = router._wall()
        message._extras = None
        message._mailbox = self._direct[1]
        message._state = IN_FLIGHT
        self._messages.append(message)
        return True

    async def enter(self) -> None:
        messages = self._messages
        if messages:
            self._messages = []
            assert self._direct is not None
            route, mailbox, *_ = self._direct
            entered = mailbox._enter_many(messages)
            route._published += entered
            self.results += [message._id for message in messages[:entered]]
            for message in messages[entered:]:
                message._mailbox = None
                await self._settle(route._publish_message, message)
            self._entered += len(messages)
            if self._entered >= self._router._budget:
                self._entered = 0
                await YIELD
        self.channel = None

    async def publish(self, item: tuple[Any, ...]) -> None:
        await self._settle(_publish_item, self._router, item)

    async def _settle(self, publish: Callable[..., Awaitable[str | None]], *arguments: Any) -> None:
        try:
            self.results.append(await publish(*arguments))
        except Exception as error:  # noqa: BLE001 - reported for its item, whatever it is
            self.errors[len(self.results)] = error
            self.results.append(None)


def _publish_item(router: Router, item: tuple[Any, ...]) -> Awaitable[str | None]:
    return _publish(router, *item)


def _publish(
    router: Router,
    channel: str,
    payload: Any,
    priority: int | None = None,
    options: Mapping[str, Any] | None = None,
    /,
) -> Awaitable[str | None]:
    return router.publish(channel, payload, priority=priority, **(options or {}))
