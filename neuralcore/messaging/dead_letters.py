"""Looking at dead letters, and bringing them back, on any transport that can browse.

::

    letters = DeadLetters(transport, "orders")
    async for letter in letters:
        print(letter.id, letter.reason, letter.error)
    await letters.replay(lambda letter: letter.error_type == "ConnectionError")
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from neuralcore.messaging import headers
from neuralcore.messaging.codec import decode
from neuralcore.messaging.names import dead_letter_channel
from neuralcore.messaging.remote.wire import replay_number
from neuralcore.messaging.transport import (
    Delivery,
    Demand,
    Envelope,
    Group,
    Interest,
    Outcome,
    Settlement,
    SettleStatus,
    Transport,
)

__all__ = ["DeadLetterRecord", "DeadLetters"]

_GROUP = "nc-replay"
"""Replaying is a group's work: it takes a letter away in the same commit that brings the message back."""
_PAGE = 100
_QUIET = 1.0
"""Seconds without a letter after which there are no more."""

Wanted = Callable[["DeadLetterRecord"], bool]


@dataclass(frozen=True, slots=True)
class DeadLetterRecord:
    """A dead letter as it is stored."""

    envelope: Envelope

    @property
    def id(self) -> str:
        """The original message's."""
        return self._header(headers.DLQ_ID, self.envelope.id)

    @property
    def origin(self) -> str:
        """The channel it was published to."""
        return self._header(headers.DLQ_ORIGIN)

    @property
    def group(self) -> str | None:
        """Who gave up on it; None for a broadcast."""
        return self.envelope.headers.get(headers.DLQ_GROUP)

    @property
    def key(self) -> tuple[str, str | None]:
        """The same for all letters that one message makes in one group."""
        return self.id, self.group

    @property
    def reason(self) -> str:
        return self._header(headers.DLQ_REASON)

    @property
    def error_type(self) -> str:
        return self._header(headers.DLQ_ERROR_TYPE)

    @property
    def error(self) -> str:
        return self._header(headers.DLQ_ERROR)

    @property
    def attempts(self) -> int:
        return int(self._header(headers.DLQ_ATTEMPTS, "0"))

    @property
    def time_ns(self) -> int:
        """When it was dead-lettered: wall clock."""
        return int(self._header(headers.DLQ_TIME, "0"))

    def payload(self, type: Any = Any) -> Any:
        """Raises DecodeError: it may be here for that very reason."""
        return decode(self.envelope.content_type, self.envelope.body, type)

    def again(self) -> Envelope:
        """The original, to be published once more for the group that gave up on it."""
        number = replay_number(self.envelope.headers) + 1
        kept = {name: value for name, value in self.envelope.headers.items() if not name.startswith("nc-dlq-")}
        target = {} if self.group is None else {headers.REPLAY_GROUP: self.group}
        return Envelope(
            id=self.id,
            channel=self.origin,
            body=self.envelope.body,
            content_type=self.envelope.content_type,
            priority=self.envelope.priority,
            timestamp_ns=int(self._header(headers.DLQ_PUBLISHED, "0")),
            headers={**kept, **target, headers.REPLAY: str(number)},
            key=self.envelope.key,
            correlation_id=self.envelope.correlation_id,
            replay=number,
            dedup_key=None if self.group is None else f"{self.id}|{self.group}",
        )

    def _header(self, name: str, default: str = "") -> str:
        return self.envelope.headers.get(name, default)


class DeadLetters:
    """Those of one channel, on a transport that is open."""

    def __init__(self, transport: Transport, channel: str, *, dead_letter: str | None = None) -> None:
        """``dead_letter``: where they go, if that is not ``_dlq.<channel>``."""
        self._transport = transport
        self.channel = dead_letter or dead_letter_channel(channel)

    async def __aiter__(self) -> AsyncIterator[DeadLetterRecord]:
        """All of them, oldest first. Raises Unsupported where nothing can be browsed."""
        cursor: str | None = "beginning"
        while cursor is not None:
            page = await self._transport.browse(self.channel, cursor, _PAGE)
            for envelope in page.envelopes:
                yield DeadLetterRecord(envelope)
            cursor = page.next

    async def replay(self, wanted: Wanted = lambda letter: True, *, limit: int | None = None) -> int:
        """Publish the originals again, each for the group that gave up on it, and take the letters away; how many.

        A replay is never suppressed as a duplicate, and begins with attempt 1.
        """
        return await self._take(wanted, limit, replay=True)

    async def discard(self, wanted: Wanted = lambda letter: True, *, limit: int | None = None) -> int:
        """Take letters away for good; how many."""
        return await self._take(wanted, limit, replay=False)

    async def _take(self, wanted: Wanted, limit: int | None, *, replay: bool) -> int:
        consumer = await self._transport.consume(Group(_GROUP))
        going = _Round(wanted, sys.maxsize if limit is None else limit)
        try:
            await consumer.update([Interest(id=1, pattern=self.channel, start="beginning")])
            while going.left and (deliveries := await consumer.fetch({1: Demand(_PAGE)}, _QUIET)):
                chosen = going.choose(deliveries)
                going.give_up(await self._end(chosen, replay=replay))
        finally:
            await self._transport.commit([], [Settlement(each, Outcome.RELEASE) for each in going.spared])
            await consumer.close()
        return going.taken

    async def _end(self, chosen: Sequence[Delivery], *, replay: bool) -> list[Delivery]:
        """Those that could not be ended."""
        publishes = [DeadLetterRecord(each.envelope).again() for each in chosen] if replay else []
        settlements = [
            Settlement(each, Outcome.ACK, after=index if replay else None) for index, each in enumerate(chosen)
        ]
        result = await self._transport.commit(publishes, settlements)
        ended = zip(chosen, result.settled, strict=True)
        return [each for each, status in ended if status in (SettleStatus.SKIPPED, SettleStatus.UNKNOWN)]


class _Round:
    """Which letters are taken in one go: no message twice, though it fails again meanwhile and makes a new letter."""

    def __init__(self, wanted: Wanted, limit: int) -> None:
        self._wanted = wanted
        self.left = limit
        self.taken = 0
        self.spared: list[Delivery] = []
        self._seen: set[tuple[str, str | None]] = set()

    def choose(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        chosen = [each for each in deliveries if self._takes(each)]
        self.taken += len(chosen)
        return chosen

    def _takes(self, delivery: Delivery) -> bool:
        letter = DeadLetterRecord(delivery.envelope)
        takes = self.left > 0 and letter.key not in self._seen and self._wanted(letter)
        if takes:
            self._seen.add(letter.key)
            self.left -= 1
        else:
            self.spared.append(delivery)
        return takes

    def give_up(self, deliveries: Sequence[Delivery]) -> None:
        self.taken -= len(deliveries)
        self.spared += deliveries
