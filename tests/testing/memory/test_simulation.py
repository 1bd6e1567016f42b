"""Many clients that die, forget and dawdle, by seed: nothing is lost, and no key overtakes itself."""

import random
from collections import defaultdict

import pytest

from neuralcore.messaging.transport import Outcome

OUTCOMES = [Outcome.ACK] * 4 + [Outcome.NACK, Outcome.RELEASE]


class World:
    def __init__(self, bench, seed):
        self.bench = bench
        self.rng = random.Random(seed)
        self.stored = []
        self.settled = defaultdict(list)
        self.in_flight = {}
        self.generation = 0
        self.members = {}
        for name in ("A", "B", "C"):
            self.start(name)

    def start(self, name):
        """A process and its two subscriptions."""
        self.generation += 1
        client = f"{name}{self.generation}"
        self.members[name] = (client, [self.bench.join("work.>", group=g, client=client) for g in ("g", "h")])
        self.in_flight[client] = []

    def step(self):
        action = self.rng.choices(
            (self.publish, self.fetch, self.settle, self.die, self.leave, self.wait), (6, 6, 8, 0.3, 0.2, 2)
        )[0]
        action()

    def publish(self):
        body = b"%d" % len(self.stored)
        self.bench.publish(
            f"work.{self.rng.choice('xyz')}",
            body,
            key=self.rng.choice((None, "k1", "k2")),
            priority=self.rng.choice((25, 50)),
            delay_ns=self.rng.choice((0, 0, 0, 3 * 10**9)),
        )
        self.stored.append(body)

    def fetch(self):
        client, members = self.members[self.rng.choice("ABC")]
        member = self.rng.choice(members)
        for delivery in member.fetch(self.rng.randrange(1, 6)):
            self.in_flight[client].append((member, delivery))

    def settle(self):
        client, _ = self.members[self.rng.choice("ABC")]
        flying = self.in_flight[client]
        if not flying:
            return
        member, delivery = flying.pop(self.rng.randrange(len(flying)))
        outcome = self.rng.choice(OUTCOMES)
        status = self.bench.settle(outcome, delivery, delay_ns=self.rng.randrange(3) * 10**9)[0]
        assert status.value == "settled"
        if outcome is Outcome.ACK:
            self.settled[member.reader.group].append(delivery.envelope)

    def die(self):
        name = self.rng.choice("ABC")
        self.bench.die(self.members[name][0])
        self.start(name)

    def leave(self):
        name = self.rng.choice("ABC")
        self.bench.leave(self.members[name][0])
        self.start(name)

    def wait(self):
        self.bench.pass_time(self.rng.random() * 4)

    def drain(self):
        for name in "ABC":
            self.bench.die(self.members[name][0])
        self.start("A")
        idle = 0
        while idle < 3:
            self.bench.pass_time(20)
            idle += 1
            for member in self.members["A"][1]:
                while deliveries := member.fetch():
                    idle = 0
                    for delivery in deliveries:
                        self.bench.ack(delivery)
                        self.settled[member.reader.group].append(delivery.envelope)


@pytest.mark.parametrize("seed", range(25))
def test_every_group_settles_every_message_once_whatever_happens(bench, seed):
    world = World(bench, seed)
    for _ in range(400):
        world.step()
    world.drain()
    for group in ("g", "h"):
        assert sorted(e.body for e in world.settled[group]) == sorted(world.stored)
    assert {(s.depth, s.in_flight, s.stored) for s in bench.store.stats(bench.now).values()} == {(0, 0, 0)}
    assert bench.next_event() is None or bench.next_event() > 0


@pytest.mark.parametrize("seed", range(10))
def test_no_message_of_a_key_is_handed_over_while_another_is_in_flight(bench, seed):
    world = World(bench, seed)
    busy = {}
    settle = bench.settle

    def watched(outcome, delivery, **fields):
        for key, holder in list(busy.items()):
            if holder is delivery:
                del busy[key]
        return settle(outcome, delivery, **fields)

    bench.settle = watched
    for _ in range(400):
        before = {id(d) for flying in world.in_flight.values() for _, d in flying}
        world.rng.choices((world.publish, world.fetch, world.settle, world.wait), (6, 6, 8, 2))[0]()
        for flying in world.in_flight.values():
            for member, delivery in flying:
                envelope = delivery.envelope
                if id(delivery) in before or envelope.key is None:
                    continue
                place = (member.reader.group, envelope.channel, envelope.key)
                assert place not in busy, f"{place} was handed over twice"
                busy[place] = delivery
