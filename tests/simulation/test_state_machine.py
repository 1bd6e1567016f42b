"""The bus against its model: whatever is done to it, in virtual time, it does what the model says."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from neuralcore.messaging.errors import ChannelFull
from neuralcore.messaging.local import NativeTransport
from neuralcore.messaging.retry import Reject, Retry, RetryPolicy
from neuralcore.testing import VirtualLoop
from neuralcore.testing.bus import bus_in
from neuralcore.testing.model import Entry, ModelMailbox

CHANNELS = ("a.x", "a.y", "b.x")
PATTERNS = {"a.*": {"a.x", "a.y"}, "a.x": {"a.x"}, ">": set(CHANNELS), "b.x": {"b.x"}}
MAX_ATTEMPTS = 4


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="neuralcore")


class Group:
    """One group of the real bus beside its model; its handlers wait to be told how to end."""

    def __init__(self, pattern, model):
        self.pattern = pattern
        self.model = model
        self.started = []
        self.running = []

    async def handle(self, message):
        ending = asyncio.get_running_loop().create_future()
        self.started.append((message, ending))
        verb, argument = await ending
        if verb == "fail":
            raise Retry(after=argument)
        if verb == "reject":
            raise Reject("told to")
        if verb == "release":
            await message.release()

    def follow(self):
        """Check every handler that began against the model, in the order in which they began."""
        for message, ending in self.started:
            allowed = {entry.payload: entry for entry in self.model.candidates()}
            assert message.payload in allowed, (
                f"{self.pattern}: {message.payload} was handled where one of {sorted(allowed)} was next"
            )
            entry = allowed[message.payload]
            assert (message.attempt, message.key, message.priority) == (entry.attempt, entry.key, entry.rank)
            self.model.start(entry)
            self.running.append((entry, ending))
        self.started.clear()


class BusMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.loop = VirtualLoop()
        self.bus = bus_in(self.loop, NativeTransport(), retry=RetryPolicy(max_attempts=MAX_ATTEMPTS))
        self.do(self.bus.start())
        self.groups = []
        self.subscriptions = []
        self.sent = 0

    def do(self, awaitable):
        async def step():
            result = await awaitable
            await self.loop.idle()
            return result

        return self.loop.run_until_complete(step())

    def settle(self):
        self.do(asyncio.sleep(0))
        for group in self.groups:
            group.model.wake(self.loop.time())
            group.follow()

    @initialize(
        boxes=st.lists(
            st.tuples(
                st.sampled_from(sorted(PATTERNS)),
                st.integers(1, 6),
                st.sampled_from(["block", "drop_new", "drop_old", "reject"]),
                st.booleans(),
                st.integers(1, 3),
            ),
            min_size=1,
            max_size=3,
        ),
        keyed=st.booleans(),
    )
    def subscribe(self, boxes, keyed):
        self.keys = [None, "k", "l"] if keyed else [None]
        for number, (pattern, capacity, overflow, hold, workers) in enumerate(boxes):
            policy = "reject" if keyed and overflow == "drop_old" else overflow
            group = Group(pattern, ModelMailbox(capacity, policy, hold))
            options = {"group": f"g{number}", "capacity": capacity, "overflow": policy, "hold_keys": hold}
            self.do(asyncio.sleep(0))
            self.loop.run_until_complete(self.attach(group, options, workers))
            self.groups.append(group)

    async def attach(self, group, options, workers):
        subscription = self.bus.subscribe(group.pattern, group.handle, concurrency=workers, **options)
        await subscription.ready()
        self.subscriptions.append((subscription, workers))

    @rule(
        channel=st.sampled_from(CHANNELS),
        rank=st.sampled_from([0, 25, 50, 100, 255]),
        key=st.integers(0, 2),
        delay=st.sampled_from([None, None, None, 0.5, 2.0]),
    )
    def publish(self, channel, rank, key, delay):
        self.sent += 1
        key = self.keys[key % len(self.keys)]
        now = self.loop.time()
        boxes = [group.model for group in self.groups if channel in PATTERNS[group.pattern]]
        entries = [Entry(self.sent, rank, key, due=now + delay if delay else 0.0) for _ in boxes]
        expected = [box.asks() for box in boxes]
        publish = partial(self.bus.publish_nowait, channel, self.sent, priority=rank, key=key, delay=delay)
        if "refused" in expected:
            with pytest.raises(ChannelFull) as refused:
                publish()
            assert refused.value.message.payload == self.sent
            self.forget_drops()
        else:
            id = publish()
            assert (id is None) == (bool(boxes) and "taken" not in expected), expected
            for box, entry in zip(boxes, entries, strict=True):
                box.enter(entry, now)
        self.settle()

    def forget_drops(self):
        """A mailbox may count as dropped what another one refused for all of them."""
        for group, stats in zip(self.groups, self.bus.metrics().subscriptions, strict=True):
            group.model.dropped = stats.dropped

    @precondition(lambda self: any(group.running for group in self.groups))
    @rule(
        which=st.integers(0, 100),
        ending=st.sampled_from(["ack", "ack", "fail", "fail", "release", "reject"]),
        delay=st.sampled_from([0.0, 0.0, 0.7, 3.0]),
    )
    def finish(self, which, ending, delay):
        running = [(group, pair) for group in self.groups for pair in group.running]
        group, (entry, future) = running[which % len(running)]
        group.running.remove((entry, future))
        now = self.loop.time()
        self.loop.call_soon(future.set_result, (ending, delay))
        if ending == "release":
            group.model.release(entry)
        elif ending == "fail" and entry.attempt < MAX_ATTEMPTS:
            group.model.fail(entry, now, delay)
        else:
            group.model.ack(entry)
        self.settle()

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 5.0]))
    def advance(self, seconds):
        """From due time to due time, so that what becomes due meanwhile is judged then."""
        end = self.loop.time() + seconds
        while True:
            times = [due for group in self.groups if (due := group.model.next_due()) is not None]
            until = min([end, *times])
            self.do(asyncio.sleep(max(0.0, until - self.loop.time())))
            for group in self.groups:
                group.model.wake(self.loop.time() + 1e-6)
                group.follow()
            if until >= end:
                return

    @invariant()
    def the_numbers_agree(self):
        for group, stats in zip(self.groups, self.bus.metrics().subscriptions, strict=True):
            model = group.model
            assert stats.depth == len(model.waiting)
            assert stats.in_flight == len(model.in_flight)
            assert stats.acked == model.acked
            assert stats.dropped == model.dropped
            assert stats.depth + stats.in_flight <= model.capacity

    @invariant()
    def no_worker_rests_while_there_is_something_to_do(self):
        for group, (_, workers) in zip(self.groups, self.subscriptions, strict=True):
            if group.model.candidates():
                assert len(group.model.in_flight) == workers

    def teardown(self):
        for group in self.groups:
            for _, ending in group.running:
                ending.set_result(("ack", None))
        self.do(self.bus.close(drain=False, timeout=1.0))
        self.loop.close()
        asyncio.set_event_loop(None)


BusMachine.TestCase.settings = settings(
    max_examples=300,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)
TestBus = pytest.mark.timeout(120)(BusMachine.TestCase)
