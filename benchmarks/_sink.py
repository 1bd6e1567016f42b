"""Who handles the messages: a no-op when timed, a recorder when checked. One kind of handler per question.

They are declared to take messages, as handlers of the bus are; peers call the same ones with bare payloads.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

from neuralcore._core import Message

__all__ = ["NOOP", "CheckFailed", "Gate", "Recorder", "Sink", "check"]

Awaited = Callable[[Any], Coroutine[Any, Any, None]]


class CheckFailed(Exception):
    """A message was lost, repeated, changed or reordered, so there is nothing to time."""


class Gate:
    """Holds a handler back until a backlog is complete; open, it costs the handler one attribute."""

    __slots__ = ("_event", "closed")

    def __init__(self) -> None:
        self.closed = True
        self._event = asyncio.Event()

    def open(self) -> None:
        self.closed = False
        self._event.set()

    async def opened(self) -> None:
        await self._event.wait()


class Sink(Protocol):
    """Makes the handlers of a stream."""

    def awaited(self, stream: str = "") -> Awaited: ...
    def plain(self, stream: str = "") -> Callable[[Any], None]: ...
    def suspending(self, stream: str = "") -> Awaited: ...
    def batched(self, stream: str = "") -> Awaited: ...
    def gated(self, gate: Gate, stream: str = "") -> Awaited: ...


async def _awaited(item: Message) -> None:
    pass


def _plain(item: Message) -> None:
    pass


async def _suspending(item: Message) -> None:
    await asyncio.sleep(0)


async def _batched(items: list[Message]) -> None:
    pass


class Noop:
    def awaited(self, stream: str = "") -> Awaited:
        return _awaited

    def plain(self, stream: str = "") -> Callable[[Any], None]:
        return _plain

    def suspending(self, stream: str = "") -> Awaited:
        return _suspending

    def batched(self, stream: str = "") -> Awaited:
        return _batched

    def gated(self, gate: Gate, stream: str = "") -> Awaited:
        async def handler(item: Message) -> None:
            if gate.closed:
                await gate.opened()

        return handler


NOOP = Noop()


class Recorder:
    """Remembers the ``i`` of every payload, by stream, in the order of arrival."""

    def __init__(self) -> None:
        self.seen: dict[str, list[int]] = defaultdict(list)

    def record(self, stream: str, item: Any) -> None:
        self.seen[stream].append(getattr(item, "payload", item)["i"])

    def plain(self, stream: str = "") -> Callable[[Any], None]:
        return lambda item: self.record(stream, item)

    def awaited(self, stream: str = "") -> Awaited:
        async def handler(item: Message) -> None:
            self.record(stream, item)

        return handler

    def suspending(self, stream: str = "") -> Awaited:
        async def handler(item: Message) -> None:
            await asyncio.sleep(0)
            self.record(stream, item)

        return handler

    def batched(self, stream: str = "") -> Awaited:
        async def handler(items: list[Message]) -> None:
            for item in items:
                self.record(stream, item)

        return handler

    def gated(self, gate: Gate, stream: str = "") -> Awaited:
        async def handler(item: Message) -> None:
            if gate.closed:
                await gate.opened()
            self.record(stream, item)

        return handler


def check(
    who: str,
    seen: Mapping[str, Sequence[int]],
    expected: Mapping[str, Sequence[int]],
    *,
    producers: int = 1,
    ordered: bool = True,
) -> None:
    """Raise CheckFailed at the first difference; each of several producers' equal shares is compared by itself."""
    if unexpected := seen.keys() - expected.keys():
        raise CheckFailed(f"{who}: messages on streams nobody published to: {sorted(unexpected)}")
    for stream, wanted in expected.items():
        share = len(wanted) // producers
        got = seen.get(stream, ())
        for producer in range(producers):
            part = wanted[producer * share : (producer + 1) * share]
            members = set(part)
            came = [i for i in got if i in members]
            _compare(f"{who}, stream {stream!r}", came if ordered else sorted(came), part)
        if len(got) != share * producers:
            raise CheckFailed(f"{who}, stream {stream!r}: {len(got)} messages handled, {share * producers} published")


def _compare(who: str, got: Sequence[int], wanted: Sequence[int]) -> None:
    for position, (have, want) in enumerate(zip(got, wanted, strict=False)):
        if have != want:
            raise CheckFailed(f"{who}: message {have} came at position {position}, where {want} belongs")
    if len(got) != len(wanted):
        there = set(got)
        missing = list(islice((i for i in wanted if i not in there), 3))
        raise CheckFailed(f"{who}: {len(got)} messages handled, {len(wanted)} published; missing {missing}")
