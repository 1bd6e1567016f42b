"""A bounded priority FIFO with keys, delays and slots."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from functools import partial
from itertools import count
from threading import RLock
from typing import TYPE_CHECKING, Final, final

from neuralcore.fallback.awaitables import done
from neuralcore.fallback.delays import Due
from neuralcore.fallback.effects import After, Effects, run
from neuralcore.fallback.extras import NO_EXTRAS
from neuralcore.fallback.histogram import Recorder
from neuralcore.fallback.message import IN_FLIGHT, LOST, SETTLED, Message
from neuralcore.fallback.slots import DEADLOCK, DROPPED, FULL, GRANTED, Slots
from neuralcore.fallback.stats import MailboxStats
from neuralcore.fallback.store import Store
from neuralcore.fallback.waker import Waker
from neuralcore.fallback.workers import Workers

if TYPE_CHECKING:
    from neuralcore.fallback.clock import Clock
    from neuralcore.fallback.pump import Pump
    from neuralcore.fallback.reservation import Reservation
    from neuralcore.fallback.settler import Overflow, Settler
    from neuralcore.fallback.slots import Waiter
    from neuralcore.fallback.waiting import Waiting

__all__ = ["Mailbox"]

MEASURED: Final = 4
"""Of the messages that wake somebody, the wait and the handler of one in so many are measured."""

_order = count()


@final
class Mailbox:
    """A bounded priority FIFO with keys, delays and slots.

    Lower rank first, FIFO inside a rank. A slot is taken on entry and given back at ``ack``: messages in flight,
    parked or delayed keep theirs. A key in flight parks its later messages.
    """

    __slots__ = (
        "__weakref__",
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
        "_wakes",
        "_woken_ns",
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
        if not isinstance(hold_keys, bool):
            raise TypeError(f"hold_keys must be a bool, not {hold_keys!r}")
        self._workers = Workers()
        self._slots = Slots(capacity, overflow)
        self._store = Store(clock)
        self._queue = self._store.queue
        self._clock = clock
        self._settler = settler
        self._hold_keys = hold_keys
        self._closed = False
        self._order = next(_order)
        self._lock = RLock()
        self._retried = self._released = self._expired = 0
        self._wakes = -1
        self._woken_ns = 0
        """When a message woke somebody, if its wait is one of those that are measured."""
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
        slots = self._slots
        with Effects(self) as after:
            slots.configure(
                slots.capacity if capacity is None else capacity,
                slots.overflow if overflow is None else overflow,
            )
            self._grant(after)
            if slots.overflow != "block":
                for waiter in self._dismiss_all():
                    waiter.reconsider(self, after)

    def offer(self, message: Message) -> None:
        """Enter a message past the capacity: for transports, which bound themselves by demand."""
        with Effects(self) as after:
            if self._closed:
                raise RuntimeError(f"message {message.id} was offered to a closed mailbox")
            if message._mailbox is not None:
                message = message._copy(message._extras)
            self._slots.taken += 1
            message._extras = message._extras or NO_EXTRAS
            self._put(message, None, after)

    def take(self) -> Message | None:
        """The most urgent message that may be handled now, in flight from here on; None when there is none."""
        message = self._next(None)
        if self._closed:
            self._finished()
        return message

    def ready(self) -> Awaitable[bool]:
        """Wait until ``take`` may have something. False once the mailbox is closed and empty."""
        with self._lock:
            if self._queue.top:
                return done(True)
            if self._closed and not self._store:
                return done(False)
            self._slots.resettle()
            waker = Waker(worker=False)
            self._workers.rest(waker)
        waker.future.add_done_callback(lambda future: self._withdraw(waker) if future.cancelled() else None)
        return waker.future

    def ack(self, message: Message) -> None:
        """It is done: give its slot and key back."""
        with Effects(self) as after:
            self._land(message, "acked")
            self._acknowledge(message, after)

    def retry(self, message: Message, delay_ns: int) -> None:
        """Deliver it again with ``attempt + 1``, behind its equals, after the delay; it keeps its slot."""
        with Effects(self) as after:
            self._land(message, "retried")
            self._retried += 1
            again = message._copy((message._extras or NO_EXTRAS).next_attempt())
            if self._hold_keys and message.key is not None:
                self._store.keys.hold(message.key, again)
            else:
                self._store.leave_key(message)
            due = Due(self._clock._monotonic() + delay_ns, wall=False) if delay_ns > 0 else None
            self._put(again, due, after)
            self._hand_over(after)

    def release(self, message: Message) -> None:
        """Back into the queue before its equals, untouched."""
        with Effects(self) as after:
            self._land(message, "released")
            self._released += 1
            again = message._copy(message._extras) if message._state & (SETTLED | LOST) else message
            self._store.push_front(again)
            self._hand_over(after)

    def promote(self) -> int | None:
        """Move what is due into the queue; the monotonic time of the next due message, or None."""
        with Effects(self) as after:
            next_due = self._store.promote()
            self._hand_over(after)
        return next_due

    def clear(self) -> list[Message]:
        """Take out and return all that is not in flight, most urgent first; their slots are free."""
        with Effects(self) as after:
            taken = self._store.clear()
            for message in taken:
                message._mailbox = None
                self._free(after)
            self._end_if_empty(after)
        return taken

    def close(self) -> None:
        """Accept nothing more; pumps end when it is empty.

        Publishers that wait for a slot go on without it, or are refused (``closed``) when the router is closed.
        """
        with Effects(self) as after:
            self._closed = True
            self._slots.close()
            for waiter in self._dismiss_all():
                waiter.closed(self, after)
            self._end_if_empty(after)

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
        with Effects(self) as after:
            message = self._store.pop_newest(rank)
            if message is not None:
                message._mailbox = None
                self._free(after)
                self._hand_over(after)
                self._end_if_empty(after)
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
                delivered=in_flight + self._slots.acked + self._retried + self._released,
                acked=self._slots.acked,
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
            self._slots.resettle()

    def _leave(self, pump: Pump, *, active: bool) -> None:
        """What is queued is left to the others."""
        with Effects(self) as after:
            self._workers.leave(pump)
            if active:
                self._workers.goes_away()
            self._hand_over(after)

    def _next(self, finished: Message | None) -> Message | None:
        """Acknowledge the last message, which is not marked as in flight any more, and take the next one."""
        after: After = []
        self._lock.acquire()
        try:
            if finished is not None:
                self._ack(finished, after)
            message = self._pop(after)
        finally:
            self._lock.release()
        if after:
            run(after)
        return message

    def _next_batch(self, finished: list[Message], size: int) -> list[Message]:
        """As ``_next``, for up to ``size`` messages."""
        after: After = []
        messages: list[Message] = []
        queue = self._queue
        with self._lock:
            for message in finished:
                self._ack(message, after)
            while len(messages) < size:
                top = queue.top
                if top and top[0]._extras is None:
                    messages.append(top.popleft())
                    if not top:
                        queue.advance()
                    continue
                taken = self._pop(after)
                if taken is None:
                    break
                messages.append(taken)
        if after:
            run(after)
        return messages

    def _done(self, message: Message) -> None:
        """Acknowledge a message that is not marked as in flight any more."""
        with Effects(self) as after:
            self._acknowledge(message, after)

    def _goes_on(self) -> None:
        """A worker is active again."""
        self._lock.acquire()
        self._workers.goes_on()
        self._lock.release()

    def _goes_away(self) -> None:
        """A worker waits for something else: what is queued is left to the others."""
        chosen = None
        self._lock.acquire()
        try:
            self._workers.goes_away()
            if self._workers.resting and self._queue.top:
                chosen = self._workers.choose()
        finally:
            self._lock.release()
        if chosen is not None:
            self._wake_all(chosen)

    def _rest(self, waker: Waker) -> bool | None:
        """A worker waits from now on. None when there is something to do, False when there never will be."""
        with self._lock:
            if self._queue.top:
                return None
            if self._closed and not self._store:
                return False
            self._workers.rest(waker)
            return True

    def _withdraw(self, waker: Waker) -> None:
        """It stopped waiting: somebody else does what it was woken for."""
        with Effects(self) as after:
            self._workers.withdraw(waker)
            self._hand_over(after)

    def _rouse(self) -> None:
        """Somebody may have to be woken for what was queued just now."""
        chosen = None
        with self._lock:
            if self._workers.resting and self._queue.top:
                chosen = self._choose()
        if chosen is not None:
            self._wake_all(chosen)

    def _summon(self, waker: Waker) -> None:
        with self._lock:
            chosen = self._workers.summon(waker)
        if chosen:
            self._wake_all([waker])

    def _finished(self) -> None:
        """If it is closed and empty, whoever still waits is told."""
        with Effects(self) as after:
            self._end_if_empty(after)

    def _wake_all(self, wakers: list[Waker], work: bool = True) -> None:
        """They were chosen; where nobody runs the loop any more, others are."""
        for waker in wakers:
            if not waker.wake(work):
                self._lose(waker)

    def _lose(self, waker: Waker) -> None:
        """The loop of whom was chosen is closed: others do what there is to do, if there are any."""
        with Effects(self) as after:
            self._workers.withdraw(waker)
            if self._workers.bury():
                self._slots.desert()
                self._turn_away(after)
            self._hand_over(after)

    # For publishers

    def _choose(self) -> list[Waker]:
        """Whom to wake for what has just been queued."""
        self._wakes += 1
        self._woken_ns = 0 if self._wakes % MEASURED else self._clock._monotonic()
        return self._workers.choose()

    def _publish(self, message: Message, due: Due | None) -> int:
        """Enter it if there is a slot by the policy. Answers what came of it."""
        after: After = []
        self._lock.acquire()
        try:
            outcome = self._take_slot(after)
            if outcome == GRANTED:
                self._put(message, due, after)
        finally:
            self._lock.release()
        if after:
            run(after)
        return outcome

    def _enter_many(self, messages: Sequence[Message]) -> int:
        """As many of these plain messages as there is room for. Answers how many."""
        chosen = None
        with self._lock:
            slots = self._slots
            if self._workers.resting:
                self._deserted()
            count = max(0, min(len(messages), slots.ceiling - slots.taken))
            slots.taken += count
            queue = self._queue
            for message in messages if count == len(messages) else messages[:count]:
                if message._rank == queue.top_rank:
                    queue.top.append(message)
                else:
                    queue.push(message._rank, message)
            if count and self._workers.resting:
                chosen = self._choose()
        if chosen is not None:
            self._wake_all(chosen)
        return count

    def _wait_for_room(self, waiter: Waiting) -> bool:
        """Enter at once after all, or wait. False when it would wait for ever."""
        after: After = []
        self._lock.acquire()
        try:
            outcome = self._take_slot(after)
            if outcome == FULL:
                return self._queue_up(waiter)
            if outcome == GRANTED:
                waiter.granted(self, after)
            else:
                waiter.ended(outcome, after)
        finally:
            self._lock.release()
        run(after)
        return True

    def _reserve(self, reservation: Reservation | None) -> int:
        """A slot by the policy, or for a reservation a place among those that wait."""
        with Effects(self) as after:
            self._look_for_workers(after)
            outcome = self._slots.take(self._store)
            if outcome == GRANTED:
                self._slots.reserved += 1
            elif outcome == FULL and reservation is not None and not self._queue_up(reservation):
                return DEADLOCK
            return outcome

    def _enter(self, message: Message, due: Due | None) -> bool:
        """Use a reserved slot. False when the mailbox was closed or deserted meanwhile."""
        with Effects(self) as after:
            self._slots.reserved -= 1
            if self._closed or self._slots.deserted:
                self._slots.free()
                return False
            self._evict_if_owed()
            self._put(message, due, after)
            return True

    def _give_back(self) -> None:
        """A reserved slot is not used."""
        with Effects(self) as after:
            self._slots.reserved -= 1
            self._free(after)

    def _count_drop(self) -> None:
        with self._lock:
            self._slots.dropped += 1

    def _unwait(self, waiter: Waiter) -> None:
        with self._lock:
            if waiter in self._slots.waiters:
                self._slots.waiters.remove(waiter)
                self._dismiss(waiter)

    # Under the lock

    def _deserted(self) -> bool:
        """Asked while somebody rests: there is nobody left who could be woken, and nothing comes in from now on."""
        if not self._workers.stranded():
            return False
        self._slots.desert()
        return True

    def _look_for_workers(self, after: After) -> None:
        if self._workers.resting and self._deserted():
            self._turn_away(after)

    def _turn_away(self, after: After) -> None:
        """Whoever waits is told that nothing comes in."""
        for waiter in self._dismiss_all():
            waiter.reconsider(self, after)

    def _take_slot(self, after: After) -> int:
        self._look_for_workers(after)
        outcome = self._slots.take(self._store)
        if outcome == GRANTED:
            self._evict_if_owed()
        elif outcome == DROPPED:
            self._slots.dropped += 1
        return outcome

    def _evict_if_owed(self) -> None:
        if self._slots.owed() and self._store.evict() is not None:
            self._slots.dropped += 1
            self._slots.free()

    def _put(self, message: Message, due: Due | None, after: After) -> None:
        """Store it in the slot that it has."""
        message._mailbox = self
        if due is not None and not self._store.delays.passed(due):
            earliest = self._store.delay(message, due)
            if earliest is not None:
                after.append(partial(self._settler.due, self, earliest))
            return
        self._store.push(message)
        if self._workers.resting:
            after.append(partial(self._wake_all, self._choose()))
            if message._extras is not None and message._stamp:
                # It is measured by itself.
                self._woken_ns = 0

    def _pop(self, after: After) -> Message | None:
        expired: list[Message] = []
        message = self._store.pop(expired)
        for gone in expired:
            self._expired += 1
            self._free(after)
            after.append(partial(self._settler.expired, gone))
        return message

    def _land(self, message: Message, verb: str) -> None:
        if message._mailbox is not self or not message._state & IN_FLIGHT:
            raise ValueError(f"message {message.id} cannot be {verb}: it is not in flight from this mailbox")
        message._state &= ~IN_FLIGHT

    def _acknowledge(self, message: Message, after: After) -> None:
        self._ack(message, after)
        self._hand_over(after)

    def _ack(self, message: Message, after: After) -> None:
        if message._extras is not None:
            self._store.leave_key(message)
        self._slots.ceiling += 1
        if self._slots.waiters:
            self._grant(after)

    def _free(self, after: After) -> None:
        """A slot that is not acknowledged."""
        self._slots.free()
        if self._slots.waiters:
            self._grant(after)

    def _grant(self, after: After) -> None:
        slots = self._slots
        while slots.waiters and slots.taken < slots.ceiling:
            slots.taken += 1
            self._dismiss(slots.waiters[0], first=True).granted(self, after)

    def _queue_up(self, waiter: Waiter) -> bool:
        if waiter.pump is not None and not self._workers.block(waiter.pump, self._slots.used):
            return False
        self._slots.waiters.append(waiter)
        return True

    def _dismiss(self, waiter: Waiter, *, first: bool = False) -> Waiter:
        """It waits no longer."""
        if first:
            self._slots.waiters.popleft()
        if waiter.pump is not None:
            self._workers.unblock(waiter.pump)
        return waiter

    def _dismiss_all(self) -> list[Waiter]:
        waiters = list(self._slots.waiters)
        self._slots.waiters.clear()
        return [self._dismiss(waiter) for waiter in waiters]

    def _hand_over(self, after: After) -> None:
        if self._workers.resting and self._queue.top:
            after.append(partial(self._wake_all, self._workers.choose()))

    def _end_if_empty(self, after: After) -> None:
        if self._closed and not self._store:
            after.append(partial(self._wake_all, self._workers.choose_all(), work=False))
