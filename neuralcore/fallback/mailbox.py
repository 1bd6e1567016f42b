"""A bounded priority FIFO with keys, delays and slots."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from itertools import count
from threading import RLock
from typing import TYPE_CHECKING, Final, final, get_args

from neuralcore.fallback.awaitables import done
from neuralcore.fallback.delays import Delays, Due
from neuralcore.fallback.effects import Effects
from neuralcore.fallback.extras import NO_EXTRAS
from neuralcore.fallback.histogram import Recorder
from neuralcore.fallback.keys import KeyTable
from neuralcore.fallback.message import IN_FLIGHT, LOST, SETTLED, Message
from neuralcore.fallback.ranks import RankQueue
from neuralcore.fallback.settler import Overflow
from neuralcore.fallback.stats import MailboxStats
from neuralcore.fallback.waker import Waker
from neuralcore.fallback.workers import Workers

if TYPE_CHECKING:
    from neuralcore.fallback.clock import Clock
    from neuralcore.fallback.pump import Pump
    from neuralcore.fallback.reservation import Reservation
    from neuralcore.fallback.settler import Settler

__all__ = ["CLOSED", "DEADLOCK", "DROPPED", "FULL", "GRANTED", "REJECTED", "Mailbox"]

GRANTED: Final = 0
DROPPED: Final = 1
FULL: Final = 2
REJECTED: Final = 3
CLOSED: Final = 4
DEADLOCK: Final = 5

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
        "_capacity",
        "_clock",
        "_closed",
        "_delays",
        "_dropped",
        "_expired",
        "_front",
        "_handle",
        "_hold_keys",
        "_in_flight",
        "_keys",
        "_limit",
        "_lock",
        "_order",
        "_overflow",
        "_queue",
        "_released",
        "_retried",
        "_sequence",
        "_settler",
        "_used",
        "_wait",
        "_waiters",
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
        _check(capacity, overflow)
        self._clock = clock
        self._settler = settler
        self._capacity = self._limit = capacity
        """``_limit`` is what hot paths compare with: below zero once the mailbox is closed."""
        self._overflow = overflow
        self._hold_keys = hold_keys
        self._closed = False
        self._order = next(_order)
        self._lock = RLock()
        self._queue = RankQueue()
        self._keys = KeyTable()
        self._delays = Delays(clock)
        self._workers = Workers()
        self._waiters: deque[Reservation] = deque()
        """Not empty only while no slot is free."""
        self._used = 0
        self._in_flight = 0
        self._sequence = 0
        self._front = 0
        self._acked = self._retried = self._released = self._dropped = self._expired = 0
        self._wait = Recorder()
        self._handle = Recorder()

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def overflow(self) -> Overflow:
        return self._overflow

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def settler(self) -> Settler:
        return self._settler

    def configure(self, *, capacity: int | None = None, overflow: Overflow | None = None) -> None:
        """Change it live; publishers that wait for a slot are re-examined."""
        capacity = self._capacity if capacity is None else capacity
        overflow = self._overflow if overflow is None else overflow
        _check(capacity, overflow)
        effects = Effects(self)
        with self._lock:
            self._capacity = capacity
            self._overflow = overflow
            if not self._closed:
                self._limit = capacity
            self._grant(effects)
            again = list(self._waiters) if overflow != "block" else []
            for reservation in again:
                self._unwait(reservation)
        effects.run()
        for reservation in again:
            reservation.again()

    def offer(self, message: Message) -> None:
        """Enter a message past the capacity: for transports, which bound themselves by demand."""
        effects = Effects(self)
        with self._lock:
            if self._closed:
                raise RuntimeError(f"message {message.id} was offered to a closed mailbox")
            if message._mailbox is not None:
                message = message._copy(message._extras)
            self._used += 1
            self._push(message, effects)
        effects.run()

    def take(self) -> Message | None:
        """The most urgent message that may be handled now, in flight from here on; None when there is none."""
        effects = Effects(self)
        with self._lock:
            message = self._pop(effects)
            self._end_if_empty(effects)
        effects.run()
        return message

    def ready(self) -> Awaitable[bool]:
        """Wait until ``take`` may have something. False once the mailbox is closed and empty."""
        with self._lock:
            if self._queue:
                return done(True)
            if self._closed and self._is_empty():
                return done(False)
            waker = Waker(worker=False)
            self._workers.rest(waker)
        waker.future.add_done_callback(lambda future: self._withdraw(waker) if future.cancelled() else None)
        return waker.future

    def ack(self, message: Message) -> None:
        """It is done: give its slot and key back."""
        effects = Effects(self)
        with self._lock:
            self._finish(message, "acked")
            self._acknowledge(message, effects)
        effects.run()

    def retry(self, message: Message, delay_ns: int) -> None:
        """Deliver it again with ``attempt + 1``, behind its equals, after the delay; it keeps its slot."""
        effects = Effects(self)
        with self._lock:
            self._finish(message, "retried")
            self._retried += 1
            again = message._copy((message._extras or NO_EXTRAS).next_attempt())
            if self._hold_keys and message.key is not None:
                self._keys.hold(message.key, again)
            else:
                self._leave_key(message, effects)
            if delay_ns > 0:
                self._delay(again, Due(self._clock._monotonic() + delay_ns, wall=False), effects)
            else:
                self._push(again, effects)
        effects.run()

    def release(self, message: Message) -> None:
        """Back into the queue before its equals, untouched."""
        effects = Effects(self)
        with self._lock:
            self._finish(message, "released")
            self._released += 1
            if message._state & (SETTLED | LOST):
                again = message._copy(message._extras)
            else:
                again = message
            self._front -= 1
            again._sequence = self._front
            if message.key is not None:
                self._bring_back(self._keys.give_back(message.key, again))
            self._queue.push_front(again._rank, again)
            self._wake(effects)
        effects.run()

    def promote(self) -> int | None:
        """Move what is due into the queue; the monotonic time of the next due message, or None."""
        effects = Effects(self)
        with self._lock:
            due = self._delays.pop()
            now = self._clock._monotonic() if due else 0
            for message in due:
                self._push(message, effects)
                message._stamp = now
            next_due = self._delays.next()
        effects.run()
        return next_due

    def clear(self) -> list[Message]:
        """Take out and return all that is not in flight, most urgent first; their slots are free."""
        effects = Effects(self)
        with self._lock:
            taken = self._keys.clear() + self._queue.clear() + self._delays.clear()
            for message in taken:
                self._forget(message, effects)
                self._free(effects)
            self._end_if_empty(effects)
        effects.run()
        return sorted(taken, key=_rank)

    def close(self) -> None:
        """Accept nothing more; waiting publishers are refused, pumps end when it is empty."""
        effects = Effects(self)
        with self._lock:
            self._closed = True
            self._limit = -1
            for reservation in list(self._waiters):
                self._unwait(reservation)
                effects.closed.append(reservation)
            self._end_if_empty(effects)
        effects.run()

    def depth(self) -> int:
        """Messages not in flight: queued, parked and delayed."""
        with self._lock:
            return len(self._queue) + self._keys.parked + len(self._delays)

    def depths(self) -> dict[int, int]:
        """Queued messages by rank; ranks without any are left out."""
        with self._lock:
            return self._queue.depths()

    def most_relaxed(self) -> int | None:
        """The rank of the least urgent queued message."""
        with self._lock:
            return self._queue.last_rank()

    def take_relaxed(self, rank: int) -> Message | None:
        """Take out the newest queued message of the least urgent rank, if that rank is above ``rank``; its slot is free."""
        effects = Effects(self)
        with self._lock:
            last = self._queue.last_rank()
            if last is None or last <= rank:
                return None
            message = self._queue.pop_last(newest=True)
            self._forget(message, effects)
            self._free(effects)
            self._end_if_empty(effects)
        effects.run()
        return message

    def stats(self) -> MailboxStats:
        with self._lock:
            return MailboxStats(
                capacity=self._capacity,
                queued=len(self._queue),
                parked=self._keys.parked,
                delayed=len(self._delays),
                in_flight=self._in_flight,
                waiting=len(self._waiters),
                delivered=self._in_flight + self._acked + self._retried + self._released,
                acked=self._acked,
                retried=self._retried,
                released=self._released,
                dropped=self._dropped,
                expired=self._expired,
                wait=self._wait.snapshot(),
                handle=self._handle.snapshot(),
            )

    def __repr__(self) -> str:
        return f"<Mailbox {self._order}: {self.depth()} of {self._capacity}, {self._overflow}>"

    # What the pump and the router use. Methods that take effects are called under the lock.

    def _next(self, finished: Message | None) -> Message | None:
        """Acknowledge the last message and take the next one, under one lock."""
        with self._lock:
            if (finished is None or finished._extras is None) and not self._waiters:
                if finished is not None:
                    self._in_flight -= 1
                    self._acked += 1
                    self._used -= 1
                queue = self._queue
                top = queue.top
                if not top:
                    return None
                if top[0]._extras is None:
                    message = top.popleft()
                    if not top and queue.order:
                        queue.advance()
                    message._state = message._state & LOST | IN_FLIGHT
                    self._in_flight += 1
                    return message
                finished = None
            effects = Effects(self)
            if finished is not None:
                self._in_flight -= 1
                self._acknowledge(finished, effects)
            found = self._pop(effects)
        effects.run()
        return found

    def _done(self, message: Message) -> None:
        """Acknowledge a message whose state says so already."""
        effects = Effects(self)
        with self._lock:
            self._in_flight -= 1
            self._acknowledge(message, effects)
        effects.run()

    def _take_batch(self, size: int) -> list[Message]:
        messages: list[Message] = []
        effects = Effects(self)
        with self._lock:
            while len(messages) < size and (message := self._pop(effects)) is not None:
                messages.append(message)
        effects.run()
        return messages

    def _join(self, pump: Pump) -> None:
        with self._lock:
            self._workers.join(pump)

    def _leave(self, pump: Pump, *, counted: bool = False) -> None:
        effects = Effects(self)
        with self._lock:
            self._workers.leave(pump)
            if counted:
                self._workers.active(-1)
            self._hand_over(effects)
        effects.run()

    def _acknowledge(self, message: Message, effects: Effects) -> None:
        self._acked += 1
        if message._extras is not None and message._extras.key is not None:
            self._leave_key(message, effects)
        self._free(effects)
        self._end_if_empty(effects)

    def _pop(self, effects: Effects) -> Message | None:
        queue = self._queue
        while queue.top:
            message = queue.pop()
            if message._extras is None or self._admit(message, effects):
                message._state = message._state & LOST | IN_FLIGHT
                self._in_flight += 1
                return message
        return None

    def _admit(self, message: Message, effects: Effects) -> bool:
        expires = message.expires_at_ns
        if expires is not None and expires <= self._clock._wall():
            self._expired += 1
            effects.expired.append(message)
            self._forget(message, effects)
            message._mailbox = self
            self._free(effects)
            return False
        return message.key is None or self._keys.admit(message.key, message)

    def _push(self, message: Message, effects: Effects) -> None:
        """Behind its equals, into the slot it has."""
        message._mailbox = self
        message._state &= LOST
        if message._extras is not None and message._extras.key is not None:
            self._sequence += 1
            message._sequence = self._sequence
        self._queue.push(message._rank, message)
        if self._workers.resting:
            message._stamp = self._clock._monotonic()
            self._wake(effects)

    def _delay(self, message: Message, due: Due, effects: Effects) -> None:
        message._mailbox = self
        earliest = self._delays.add(due, message)
        if earliest is not None:
            effects.due = earliest

    def _reserve(self, reservation: Reservation | None) -> int:
        """A slot by the policy, or without one for a reservation a place among those that wait."""
        with self._lock:
            if self._closed:
                return CLOSED
            if self._used < self._limit or self._overflow == "drop_old":
                self._used += 1
                return GRANTED
            if self._overflow == "drop_new":
                self._dropped += 1
                return DROPPED
            if self._overflow == "reject":
                return REJECTED
            if reservation is None:
                return FULL
            pump = reservation.pump
            if pump is not None and pump._mailbox is self and not self._workers.block(pump, self._used):
                return DEADLOCK
            self._waiters.append(reservation)
            return FULL

    def _enter(self, message: Message, due: Due | None, effects: Effects) -> bool:
        """Use a reserved slot. False when the mailbox was closed meanwhile or had nothing to evict."""
        if self._closed:
            self._used -= 1
            return False
        if self._used > self._limit and self._overflow == "drop_old":
            self._dropped += 1
            last = self._queue.last_rank()
            self._used -= 1
            if last is None or last < message._rank:
                return False
            self._forget(self._queue.pop_last(newest=False), effects)
        if due is None or self._delays.passed(due):
            self._push(message, effects)
        else:
            self._delay(message, due, effects)
        return True

    def _give_back(self) -> None:
        """A reserved slot was not used."""
        effects = Effects(self)
        with self._lock:
            self._free(effects)
        effects.run()

    def _unwait(self, reservation: Reservation) -> bool:
        """False when a slot was granted already."""
        with self._lock:
            if reservation not in self._waiters:
                return False
            self._waiters.remove(reservation)
            self._unblock(reservation)
            return True

    def _withdraw(self, waker: Waker) -> None:
        """It stopped waiting: somebody else does what it was woken for."""
        effects = Effects(self)
        with self._lock:
            self._workers.withdraw(waker)
            self._hand_over(effects)
        effects.run()

    def _rest(self, waker: Waker) -> bool:
        """A worker waits from now on; False when there is something to do."""
        with self._lock:
            if self._queue or self._closed and self._is_empty():
                return False
            self._workers.rest(waker)
            return True

    def _summon(self, waker: Waker) -> None:
        with self._lock:
            chosen = self._workers.summon(waker)
        if chosen and not waker.wake(True):
            self._withdraw(waker)

    def _active(self, change: int) -> None:
        """A worker went on (1), or suspended or ended (-1) and leaves what is queued to the others."""
        effects = Effects(self)
        with self._lock:
            self._workers.active(change)
            self._hand_over(effects)
        effects.run()

    def _finished(self) -> bool:
        """Closed and empty; then whoever still waits is told."""
        if not self._closed:
            return False
        effects = Effects(self)
        with self._lock:
            self._end_if_empty(effects)
            finished = self._is_empty()
        effects.run()
        return finished

    def _finish(self, message: Message, verb: str) -> None:
        if message._mailbox is not self or not message._state & IN_FLIGHT:
            raise ValueError(f"message {message.id} cannot be {verb}: it is not in flight from this mailbox")
        message._state &= ~IN_FLIGHT
        self._in_flight -= 1

    def _free(self, effects: Effects) -> None:
        self._used -= 1
        if self._waiters:
            self._grant(effects)

    def _grant(self, effects: Effects) -> None:
        while self._waiters and self._used < self._limit:
            self._used += 1
            reservation = self._waiters.popleft()
            self._unblock(reservation)
            effects.granted.append(reservation)

    def _unblock(self, reservation: Reservation) -> None:
        if reservation.pump is not None and reservation.pump._mailbox is self:
            self._workers.unblock(reservation.pump)

    def _leave_key(self, message: Message, effects: Effects) -> None:
        if message.key is not None and self._bring_back(self._keys.leave(message.key)):
            self._wake(effects)

    def _forget(self, message: Message, effects: Effects) -> None:
        """It was taken out without being handled."""
        message._mailbox = None
        if message.key is not None and self._bring_back(self._keys.forget(message.key, message)):
            self._wake(effects)

    def _bring_back(self, parked: Message | None) -> bool:
        if parked is None:
            return False
        self._queue.insert(parked._rank, parked)
        return True

    def _wake(self, effects: Effects) -> None:
        if self._workers.resting:
            effects.wakers += self._workers.choose()

    def _hand_over(self, effects: Effects) -> None:
        if self._queue:
            self._wake(effects)

    def _end_if_empty(self, effects: Effects) -> None:
        if self._closed and self._is_empty():
            effects.ended += self._workers.choose_all()

    def _is_empty(self) -> bool:
        return not (self._queue or self._keys.parked or len(self._delays))


def _check(capacity: int, overflow: str) -> None:
    if capacity < 1:
        raise ValueError(f"a mailbox has a capacity of 1 or more, not {capacity}")
    if overflow not in get_args(Overflow):
        raise ValueError(f"{overflow!r} is no overflow policy; choose one of {', '.join(get_args(Overflow))}")


def _rank(message: Message) -> int:
    return message._rank
