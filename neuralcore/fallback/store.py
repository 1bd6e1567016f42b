"""What a mailbox holds that is not in flight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralcore.fallback.delays import Delays, Due
from neuralcore.fallback.extras import NO_EXTRAS
from neuralcore.fallback.keys import KeyTable
from neuralcore.fallback.message import IN_FLIGHT, LOST, Message
from neuralcore.fallback.ranks import RankQueue

if TYPE_CHECKING:
    from neuralcore.fallback.clock import Clock

__all__ = ["Store"]


class Store:
    """The queue, what is parked behind keys, and what waits for its time; counts no slots, takes no lock."""

    __slots__ = ("_back", "_clock", "_front", "delays", "keys", "queue")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.queue = RankQueue()
        self.keys = KeyTable()
        self.delays = Delays(clock)
        self._back = 0
        self._front = 0

    def __len__(self) -> int:
        return len(self.queue) + self.keys.parked + len(self.delays)

    def __bool__(self) -> bool:
        return bool(self.queue.top or self.keys.parked or len(self.delays))

    def push(self, message: Message, stamp: int = 0) -> None:
        """Behind its equals. ``stamp``: the monotonic time from which its wait is measured."""
        extras = message._extras
        if extras is None:
            # Nobody can see a plain message before it is in flight.
            message._state = IN_FLIGHT
        else:
            message._state &= LOST
            if stamp:
                message._stamp = stamp
            if extras.key is not None:
                self._back += 1
                message._sequence = self._back
        self.queue.push(message._rank, message)

    def push_front(self, message: Message) -> None:
        """Before its equals, and the next one of its key."""
        self._front -= 1
        message._sequence = self._front
        if message._extras is None:
            message._extras = NO_EXTRAS
            message._stamp = 0
        if message.key is not None:
            self._bring_back(self.keys.give_back(message.key, message))
        self.queue.push_front(message._rank, message)

    def delay(self, message: Message, due: Due) -> int | None:
        """Until its time. Answers the earliest time of all when it changed."""
        if message._extras is None:
            message._extras = NO_EXTRAS
            message._stamp = 0
        message._sequence = 0
        return self.delays.add(due, message)

    def promote(self) -> int | None:
        """Queue what is due. Answers when to look again."""
        due = self.delays.pop()
        now = self._clock._monotonic() if due else 0
        for message in due:
            self.push(message, now)
        return self.delays.next()

    def pop(self, expired: list[Message]) -> Message | None:
        """The most urgent one that may be handled; those whose time is over are put aside."""
        queue = self.queue
        while queue.top:
            message = queue.pop()
            extras = message._extras
            if extras is not None:
                expires = extras.expires_at_ns
                if expires is not None and expires <= self._clock._wall():
                    self.forget(message)
                    expired.append(message)
                    continue
                if extras.key is not None and not self.keys.admit(extras.key, message):
                    continue
            message._state = message._state & LOST | IN_FLIGHT
            return message
        return None

    def pop_newest(self, above: int) -> Message | None:
        """The newest queued one of the least urgent rank, if that is above ``above``."""
        last = self.queue.last_rank()
        if last is None or last <= above:
            return None
        message = self.queue.pop_last(newest=True)
        self.forget(message)
        return message

    def evict(self) -> Message | None:
        """The oldest one of the least urgent rank, queued or parked; parked ones are older than queued equals."""
        last = self.queue.last_rank()
        parked = self.keys.evict(last)
        if parked is not None or last is None:
            return parked
        message = self.queue.pop_last(newest=False)
        self.forget(message)
        return message

    def evictable(self) -> int:
        return len(self.queue) + self.keys.parked

    def clear(self) -> list[Message]:
        """Take out all, most urgent first."""
        taken = self.keys.clear() + self.queue.clear() + self.delays.clear()
        for message in taken:
            self.forget(message)
        return sorted(taken, key=_rank)

    def forget(self, message: Message) -> None:
        """It is gone without having been handled: a key that it held is free."""
        if message.key is not None:
            self._bring_back(self.keys.forget(message.key, message))

    def leave_key(self, message: Message) -> None:
        """It is not in flight any more."""
        if message.key is not None:
            self._bring_back(self.keys.leave(message.key))

    def _bring_back(self, parked: Message | None) -> None:
        if parked is not None:
            self.queue.insert(parked._rank, parked)


def _rank(message: Message) -> int:
    return message._rank
