"""Mailbox against a model that is slow and obviously right, under random operations."""

from __future__ import annotations

import importlib
from itertools import count

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

SECOND = 1_000_000_000
RANKS = st.sampled_from([0, 1, 50, 255])
KEYS = st.sampled_from([None, None, "a", "b"])


class Settler:
    def __init__(self):
        self.due_times = []
        self.expired_messages = []

    def due(self, mailbox, monotonic_ns, /):
        self.due_times.append(monotonic_ns)

    def expired(self, message, /):
        self.expired_messages.append(message.payload)


class Item:
    """A message of the model."""

    def __init__(self, name, rank, key, expires):
        self.name = name
        self.rank = rank
        self.key = key
        self.expires = expires
        self.attempt = 1
        self.place = 0
        self.due = None
        self.holds_key = False


class MailboxMachine(RuleBasedStateMachine):
    core_name: str

    def __init__(self):
        super().__init__()
        core = self.core = importlib.import_module(self.core_name)
        self.clock = core.Clock(manual=True, time_ns=10**18, monotonic_ns=10**9)
        self.settler = Settler()
        self.names = count()
        self.places = count(1)
        self.fronts = count(-1, -1)
        self.queue = []
        self.delayed = []
        self.flying = []
        self.expired = []
        self.counts = dict.fromkeys(["acked", "retried", "released", "dropped", "expired"], 0)

    def make(self, overflow, hold_keys, capacity):
        self.capacity, self.overflow, self.hold_keys = capacity, overflow, hold_keys
        core = self.core
        self.mailbox = core.Mailbox(self.clock, self.settler, capacity=capacity, overflow=overflow, hold_keys=hold_keys)
        self.router = core.Router(
            self.clock, missing=lambda name: core.Route(self.router, name), error=lambda kind, *rest: Full(kind)
        )
        self.router.attach("jobs", self.mailbox)

    # What the model knows

    @property
    def used(self):
        return len(self.queue) + len(self.delayed) + len(self.flying)

    def busy(self, item):
        if item.key is None or item.holds_key:
            return False
        holders = [other for other in (*self.queue, *self.delayed) if other.holds_key]
        return any(other.key == item.key for other in (*self.flying, *holders))

    def candidates(self):
        return sorted((item for item in self.queue if not self.busy(item)), key=lambda item: (item.rank, item.place))

    def next_item(self):
        for item in self.candidates():
            if item.expires is None or item.expires > self.clock.time_ns():
                return item
            self.queue.remove(item)
            self.expired.append(item.name)
            self.counts["expired"] += 1
            return self.next_item()
        return None

    # Operations

    @precondition(lambda self: not hasattr(self, "mailbox"))
    @rule(
        overflow=st.sampled_from(["reject", "drop_new", "drop_old"]),
        hold_keys=st.booleans(),
        capacity=st.integers(1, 6),
    )
    def begin(self, overflow, hold_keys, capacity):
        self.make(overflow, hold_keys, capacity)

    @precondition(lambda self: hasattr(self, "mailbox"))
    @rule(rank=RANKS, key=KEYS, ttl=st.sampled_from([None, None, 1, 3]), delay=st.sampled_from([None, None, None, 2]))
    def publish(self, rank, key, ttl, delay):
        name = next(self.names)
        try:
            answer = self.router.publish_nowait("jobs", name, priority=rank, key=key, ttl=ttl, delay=delay)
        except Full as error:
            assert error.args == ("full",)
            assert self.overflow == "reject"
            assert self.used >= self.capacity
            return
        if self.used >= self.capacity:
            assert self.overflow != "reject"
            self.counts["dropped"] += 1
            if self.overflow == "drop_new" or not self.queue:
                assert answer is None
                return
            last = max(item.rank for item in self.queue)
            self.queue.remove(min((item for item in self.queue if item.rank == last), key=lambda item: item.place))
        assert answer is not None
        item = Item(name, rank, key, None if ttl is None else self.clock.time_ns() + ttl * SECOND)
        if delay is None:
            item.place = next(self.places)
            self.queue.append(item)
        else:
            item.due = self.clock.monotonic_ns() + delay * SECOND
            self.delayed.append(item)

    @precondition(lambda self: hasattr(self, "mailbox"))
    @rule(rank=RANKS, key=KEYS)
    def offer(self, rank, key):
        name = next(self.names)
        self.mailbox.offer(self.core.Message("jobs", name, id=str(name), priority=rank, key=key))
        item = Item(name, rank, key, None)
        item.place = next(self.places)
        self.queue.append(item)

    @precondition(lambda self: hasattr(self, "mailbox"))
    @rule()
    def take(self):
        expected = self.next_item()
        message = self.mailbox.take()
        if expected is None:
            assert message is None
            return
        assert message is not None
        assert (message.payload, message.attempt, message.settled) == (expected.name, expected.attempt, False)
        assert (message.priority, message.key) == (expected.rank, expected.key)
        self.queue.remove(expected)
        expected.holds_key = False
        expected.message = message
        self.flying.append(expected)

    def pick(self, data):
        return self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))

    @precondition(lambda self: getattr(self, "flying", None))
    @rule(data=st.data(), settle=st.booleans())
    def ack(self, data, settle):
        item = self.pick(data)
        if settle:
            assert item.message._settle()
        self.mailbox.ack(item.message)
        self.counts["acked"] += 1

    @precondition(lambda self: getattr(self, "flying", None))
    @rule(data=st.data(), delay=st.sampled_from([0, 0, 1]))
    def retry(self, data, delay):
        item = self.pick(data)
        self.mailbox.retry(item.message, delay * SECOND)
        self.counts["retried"] += 1
        item.attempt += 1
        item.holds_key = self.hold_keys and item.key is not None
        if delay:
            item.due = self.clock.monotonic_ns() + delay * SECOND
            self.delayed.append(item)
        else:
            item.place = next(self.places)
            self.queue.append(item)

    @precondition(lambda self: getattr(self, "flying", None))
    @rule(data=st.data(), settle=st.booleans())
    def release(self, data, settle):
        item = self.pick(data)
        if settle:
            assert item.message._settle()
        self.mailbox.release(item.message)
        self.counts["released"] += 1
        item.place = next(self.fronts)
        self.queue.append(item)

    @precondition(lambda self: hasattr(self, "mailbox"))
    @rule(seconds=st.integers(0, 3))
    def advance(self, seconds):
        self.clock.advance(seconds * SECOND)

    @precondition(lambda self: hasattr(self, "mailbox"))
    @rule()
    def promote(self):
        now = self.clock.monotonic_ns()
        for item in sorted((each for each in self.delayed if each.due <= now), key=lambda each: each.due):
            self.delayed.remove(item)
            item.place = next(self.places)
            self.queue.append(item)
        assert self.mailbox.promote() == min((item.due for item in self.delayed), default=None)

    @precondition(lambda self: hasattr(self, "mailbox"))
    @rule(capacity=st.integers(1, 6))
    def configure(self, capacity):
        self.mailbox.configure(capacity=capacity)
        self.capacity = capacity

    @precondition(lambda self: hasattr(self, "mailbox"))
    @rule()
    def clear(self):
        names = [message.payload for message in self.mailbox.clear()]
        left = [*self.queue, *self.delayed]
        assert sorted(names) == sorted(item.name for item in left)
        ranks = {item.name: item.rank for item in left}
        assert [ranks[name] for name in names] == sorted(ranks.values())
        self.queue.clear()
        self.delayed.clear()

    @invariant()
    def counters_agree(self):
        if not hasattr(self, "mailbox"):
            return
        stats = self.mailbox.stats()
        assert self.mailbox.depth() == len(self.queue) + len(self.delayed)
        assert stats.queued + stats.parked == len(self.queue)
        assert (stats.delayed, stats.in_flight) == (len(self.delayed), len(self.flying))
        assert {name: getattr(stats, name) for name in self.counts} == self.counts
        assert stats.delivered == stats.in_flight + stats.acked + stats.retried + stats.released
        assert self.settler.expired_messages == self.expired
        if not any(item.key for item in self.queue):
            ranks = [item.rank for item in self.queue]
            assert self.mailbox.depths() == {rank: ranks.count(rank) for rank in ranks}
            assert self.mailbox.most_relaxed() == max(ranks, default=None)


class Full(Exception):
    pass


def test_a_mailbox_does_what_its_model_does(core):
    machine = type("Machine", (MailboxMachine,), {"core_name": core.__name__})
    case = machine.TestCase
    phases = [Phase.generate, Phase.shrink]
    case.settings = settings(
        max_examples=120, stateful_step_count=40, deadline=None, derandomize=True, database=None, phases=phases
    )
    case().runTest()


@pytest.mark.parametrize("seed", range(3))
def test_the_model_is_not_trivial(core, seed):
    """It notices a mailbox that forgets its keys."""
    machine = type("Machine", (MailboxMachine,), {"core_name": core.__name__})()
    machine.make("reject", True, 5)
    machine.publish(50, "a", None, None)
    machine.publish(50, "a", None, None)
    machine.take()
    machine.counters_agree()
    machine.flying.clear()
    with pytest.raises(AssertionError):
        machine.take()
