"""A bounded priority FIFO with keys, delays and slots."""

from __future__ import annotations

from collections.abc import Awaitable
from itertools import count
from threading import RLock
from typing import TYPE_CHECKING, final

from neuralcore.fallback.awaitables import done
from neuralcore.fallback.delays import Due
from neuralcore.fallback.effects import Effects
from neuralcore.fallback.extras import NO_EXTRAS
from neuralcore.fallback.histogram import Recorder
from neuralcore.fallback.message import IN_FLIGHT, LOST, SETTLED, Message
from neuralcore.fallback.slots import Slots
from neuralcore.fallback.stats import MailboxStats
from neuralcore.fallback.store import Store
from neuralcore.fallback.waker import Waker
from neuralcore.fallback.workers import Workers

if TYPE_CHECKING:
    from neuralcore.fallback.clock import Clock
    from neuralcore.fallback.pump import Pump
    from neuralcore.fallback.reservation import Reservation
    from neuralcore.fallback.settler import Overflow, Settler

__all__ = ["Mailbox"]

_order = count()


@final
class Mailbox:
    """A bounded priority FIFO with keys, delays and slots.

    Lower rank first, FIFO inside a rank. A slot is taken on entry and given back at ``ack``: messages in flight,
    parked or delayed keep theirs. A key in flight parks its later messages.
    """

    __slots__ = (
        "__weakref__",
        "_acked",
        "_clock",
        "_closed",
        "_expired",
        "_handle",
        "_hold_keys",
        "_lock",
        "_order",
        "_queue",
        "_released",
        "_retried",
        "_settler",
        "_slots",
        "_store",
        "_wait",
        "_workers",
    )

    def __init__(
        self,
        clock: Clock,
        settler: Settler,
        *,
        capacity: int,
        overflow: Overflow = "block",
        hold_keys: bool = True,
    ) -> None:
        """``hold_keys``: a message waiting for its retry keeps its key, so that its successors wait too.

        Raises ValueError for a capacity below 1 or an unknown overflow policy.
        """
        self._workers = Workers()
        self._slots = Slots(capacity, overflow, self._workers)
        self._store = Store(clock)
        self._queue = self._store.queue
        self._clock = clock
        self._settler = settler
        self._hold_keys = hold_keys
        self._closed = False
        self._order = next(_order)
        self._lock = RLock()
        self._acked = self._retried = self._released = self._expired = 0
        self._wait = Recorder()
        self._handle = Recorder()

    @property
    def capacity(self) -> int:
        return self._slots.capacity

    @property
    def overflow(self) -> Overflow:
        return self._slots.overflow

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def settler(self) -> Settler:
        return self._settler

    def configure(self, *, capacity: int | None = None, overflow: Overflow | None = None) -> None:
        """Change it live; publishers that wait for a slot are re-examined."""
        with Effects(self) as effects:
            slots = self._slots
            slots.configure(
                slots.capacity if capacity is None else capacity,
                slots.overflow if overflow is None else overflow,
            )
            if self._closed:
                slots.close()
            effects.grant(slots.grant())
            if slots.overflow != "block":
                effects.try_again([slots.leave(reservation) for reservation in list(slots.waiters)])

    def offer(self, message: Message) -> None:
        """Enter a message past the capacity: for transports, which bound themselves by demand."""
        with Effects(self) as effects:
            if self._closed:
                raise RuntimeError(f"message {message.id} was offered to a closed mailbox")
            if message._mailbox is not None:
                message = message._copy(message._extras)
            self._slots.used += 1
            self._push(message, effects)

    def take(self) -> Message | None:
        """The most urgent message that may be handled now, in flight from here on; None when there is none."""
        with Effects(self) as effects:
            message = self._pop(effects)
            self._end_if_empty(effects)
        return message

    def ready(self) -> Awaitable[bool]:
        """Wait until ``take`` may have something. False once the mailbox is closed and empty."""
        with self._lock:
            if self._queue.top:
                return done(True)
            if self._closed and not self._store:
                return done(False)
            waker = Waker(worker=False)
            self._workers.rest(waker)
        waker.future.add_done_callback(lambda future: self._withdraw(waker) if future.cancelled() else None)
        return waker.future

    def ack(self, message: Message) -> None:
        """It is done: give its slot and key back."""
        with Effects(self) as effects:
            self._land(message, "acked")
            self._acknowledge(message, effects)

    def retry(self, message: Message, delay_ns: int) -> None:
        """Deliver it again with ``attempt + 1``, behind its equals, after the delay; it keeps its slot."""
        with Effects(self) as effects:
            self._land(message, "retried")
            self._retried += 1
            again = message._copy((message._extras or NO_EXTRAS).next_attempt())
            if self._hold_keys and message.key is not None:
                self._store.keys.hold(message.key, again)
            else:
                self._store.leave_key(message)
            if delay_ns > 0:
                due = Due(self._clock._monotonic() + delay_ns, wall=False)
                effects.announce(self._store.delay(again, due))
            else:
                self._push(again, effects)
            self._hand_over(effects)

    def release(self, message: Message) -> None:
        """Back into the queue before its equals, untouched."""
        with Effects(self) as effects:
            self._land(message, "released")
            self._released += 1
            again = message._copy(message._extras) if message._state & (SETTLED | LOST) else message
            # Its key, if any, still names the old object as its owner; that is all the same to the table.
            self._store.push_front(again)
            self._hand_over(effects)

    def promote(self) -> int | None:
        """Move what is due into the queue; the monotonic time of the next due message, or None."""
        with Effects(self) as effects:
            next_due = self._store.promote()
            self._hand_over(effects)
        return next_due

    def clear(self) -> list[Message]:
        """Take out and return all that is not in flight, most urgent first; their slots are free."""
        with Effects(self) as effects:
            taken = self._store.clear()
            for message in taken:
                self._remove(message, effects)
        return taken

    def close(self) -> None:
        """Accept nothing more; pumps end when it is empty.

        Publishers that wait for a slot go on without it, or are refused (``closed``) when the router is closed.
        """
        with Effects(self) as effects:
            self._closed = True
            self._slots.close()
            effects.refuse([self._slots.leave(reservation) for reservation in list(self._slots.waiters)])
            self._end_if_empty(effects)

    def depth(self) -> int:
        """Messages not in flight: queued, parked and delayed."""
        with self._lock:
            return len(self._store)

    def depths(self) -> dict[int, int]:
        """Queued messages by rank; ranks without any are left out."""
        with self._lock:
            return self._queue.depths()

    def most_relaxed(self) -> int | None:
        """The rank of the least urgent queued message."""
        with self._lock:
            return self._queue.last_rank()

    def take_relaxed(self, rank: int) -> Message | None:
        """Take out the newest queued message of the least urgent rank, if that is above ``rank``; its slot is free."""
        with Effects(self) as effects:
            message = self._store.pop_newest(rank)
            if message is not None:
                self._remove(message, effects)
                self._hand_over(effects)
        return message

    def stats(self) -> MailboxStats:
        with self._lock:
            # Whatever has a slot and is neither stored nor about to enter; hot paths count it no other way.
            in_flight = self._slots.used - self._slots.reserved - len(self._store)
            return MailboxStats(
                capacity=self._slots.capacity,
                queued=len(self._queue),
                parked=self._store.keys.parked,
                delayed=len(self._store.delays),
                in_flight=in_flight,
                waiting=len(self._slots.waiters),
                delivered=in_flight + self._acked + self._retried + self._released,
                acked=self._acked,
                retried=self._retried,
                released=self._released,
                dropped=self._slots.dropped,
                expired=self._expired,
                wait=self._wait.snapshot(),
                handle=self._handle.snapshot(),
            )

    def __repr__(self) -> str:
        return f"<Mailbox {self._order}: {self.depth()} of {self.capacity}, {self.overflow}>"

    # For pumps

    def _join(self, pump: Pump) -> None:
        with self._lock:
            self._workers.join(pump)

    def _leave(self, pump: Pump, *, active: bool) -> None:
        """What is queued is left to the others."""
        with Effects(self) as effects:
            self._workers.leave(pump)
            if active:
                self._workers.active(-1)
            self._hand_over(effects)

    def _done(self, message: Message) -> None:
        """Acknowledge a message that is not marked as in flight any more."""
        with Effects(self) as effects:
            self._acknowledge(message, effects)

    def _take_batch(self, size: int) -> list[Message]:
        messages: list[Message] = []
        with Effects(self) as effects:
            while len(messages) < size and (message := self._pop(effects)) is not None:
                messages.append(message)
        return messages

    def _active(self, change: int) -> None:
        """A worker goes on (1), or leaves what is queued to the others (-1)."""
        chosen: list[Waker] = []
        with self._lock:
            self._workers.active(change)
            if self._workers.resting and self._queue.top:
                chosen = self._workers.choose()
        for waker in chosen:
            self._wake(waker)

    def _wake(self, waker: Waker, work: bool = True) -> None:
        """One that was chosen; if nobody runs its loop any more, the next one."""
        if not waker.wake(work):
            self._withdraw(waker)

    def _rest(self, waker: Waker) -> bool:
        """A worker waits from now on; False when there is something to do, or nothing ever again."""
        with self._lock:
            if self._queue.top or (self._closed and not self._store):
                return False
            self._workers.rest(waker)
            return True

    def _withdraw(self, waker: Waker) -> None:
        """It stopped waiting: somebody else does what it was woken for."""
        with Effects(self) as effects:
            self._workers.withdraw(waker)
            self._hand_over(effects)

    def _summon(self, waker: Waker) -> None:
        with self._lock:
            chosen = self._workers.summon(waker)
        if chosen:
            self._wake(waker)

    def _finished(self) -> bool:
        """Closed and empty; then whoever still waits is told."""
        if not self._closed:
            return False
        with Effects(self) as effects:
            self._end_if_empty(effects)
            return not self._store

    # For publishers

    def _choose(self, message: Message) -> list[Waker]:
        """Whom to wake for this message, which has just been queued."""
        message._extras = message._extras or NO_EXTRAS
        message._stamp = self._clock._monotonic()
        return self._workers.choose()

    def _reserve(self, reservation: Reservation | None) -> int:
        with self._lock:
            return self._slots.reserve(reservation, self._store.evictable())

    def _enter(self, message: Message, due: Due | None) -> bool:
        """Use a reserved slot. False when the mailbox was closed meanwhile."""
        with Effects(self) as effects:
            self._slots.reserved -= 1
            if self._closed:
                self._slots.used -= 1
                return False
            if self._slots.owes() and self._store.evict() is not None:
                self._slots.dropped += 1
                self._slots.used -= 1
            if due is None or self._store.delays.passed(due):
                self._push(message, effects)
            else:
                message._mailbox = self
                effects.announce(self._store.delay(message, due))
            return True

    def _give_back(self) -> None:
        """A reserved slot is not used."""
        with Effects(self) as effects:
            self._slots.reserved -= 1
            effects.grant(self._slots.free())

    def _unwait(self, reservation: Reservation) -> None:
        with self._lock:
            if reservation in self._slots.waiters:
                self._slots.leave(reservation)

    # Under the lock

    def _push(self, message: Message, effects: Effects) -> None:
        """Queue it in the slot that it has."""
        message._mailbox = self
        self._store.push(message)
        if self._workers.resting:
            effects.wake(self._choose(message))

    def _pop(self, effects: Effects) -> Message | None:
        expired: list[Message] = []
        message = self._store.pop(expired)
        if expired:
            self._expired += len(expired)
            for _ in expired:
                effects.grant(self._slots.free())
            effects.expire(expired)
        return message

    def _land(self, message: Message, verb: str) -> None:
        if message._mailbox is not self or not message._state & IN_FLIGHT:
            raise ValueError(f"message {message.id} cannot be {verb}: it is not in flight from this mailbox")
        message._state &= ~IN_FLIGHT

    def _acknowledge(self, message: Message, effects: Effects) -> None:
        self._acked += 1
        self._store.leave_key(message)
        effects.grant(self._slots.free())
        self._hand_over(effects)

    def _remove(self, message: Message, effects: Effects) -> None:
        message._mailbox = None
        effects.grant(self._slots.free())
        self._end_if_empty(effects)

    def _hand_over(self, effects: Effects) -> None:
        if self._workers.resting and self._queue.top:
            effects.wake(self._workers.choose())

    def _end_if_empty(self, effects: Effects) -> None:
        if self._closed and not self._store:
            effects.wake(self._workers.choose_all(), work=False)
