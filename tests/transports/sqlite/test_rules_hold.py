"""Whatever is done to a store, what a check wants to hold does hold after every step."""

from __future__ import annotations

import random

import pytest

from neuralcore.messaging.channel import ChannelConfig, Retention
from neuralcore.messaging.transport import ChannelRef, Demand, Envelope, GroupRef, Interest, Outcome, Settlement
from neuralcore_transports.sqlite.care.check import looked_through
from neuralcore_transports.sqlite.care.structure import look
from neuralcore_transports.sqlite.store.fetch import Reader
from neuralcore_transports.sqlite.store.moment import Limits, Moment
from neuralcore_transports.sqlite.store.store import Store
from neuralcore_transports.sqlite.store.transaction import Book
from tests.transports.sqlite.model import connection

STEPS = 150
CHANNELS = ("a.x", "a.y", "b")
PATTERNS = ("a.x", "a.*", "a.y", ">", "b")
SECOND = 1_000_000_000


class Run:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.connection = connection()
        limits = Limits(lease=5 * SECOND, max_hold=30 * SECOND, session_ttl=20 * SECOND, dedup_window=SECOND)
        self.store = Store(Book(self.connection), limits)
        self.time = SECOND
        self.owners: list[int] = []
        self.readers: list[Reader] = []
        self.deliveries: list = []
        self.sent = 0
        self.steps = {
            self.publish: 6, self.fetch: 6, self.settle: 6, self.subscribe: 2, self.beat: 3, self.wait: 2, self.tidy: 2,
            self.join: 1, self.leave: 1, self.die: 1, self.declare: 1, self.remove: 1, self.seek: 1,
            self.unsubscribe: 1,
        }  # fmt: skip

    @property
    def now(self) -> Moment:
        return Moment(self.time, self.time)

    def step(self) -> str:
        (what,) = self.random.choices(list(self.steps), list(self.steps.values()))
        what()
        self.time += self.random.randrange(SECOND // 5)
        return what.__name__

    def publish(self) -> None:
        choose = self.random.choice
        envelopes = [
            Envelope(
                id=str(self.sent + n - choose((0, 0, 0, 0, 3))),
                channel=choose(CHANNELS),
                body=b"x" * self.random.randrange(50),
                priority=choose((0, 50, 50, 50, 100)),
                key=choose((None, None, "k", "l")),
                delay_ns=choose((0, 0, 0, SECOND)),
                not_before_ns=choose((None, None, None, self.time + SECOND)),
            )
            for n in range(self.random.randrange(1, 8))
        ]
        self.sent += len(envelopes)
        self.store.commit(envelopes, [], self.now)

    def join(self) -> None:
        self.owners.append(self.store.connect("one", "boot", self.now))

    def subscribe(self) -> None:
        known = [id for (id,) in self.connection.execute("SELECT id FROM nc_owner")]
        self.owners = [owner for owner in self.owners if owner in known]
        if not self.owners:
            return self.join()
        group = self.random.choice(("g", "h", None))
        reader = Reader(self.random.choice(self.owners), group)
        start = self.random.choice((None, None, "new", "beginning"))
        patterns = self.random.sample(PATTERNS, self.random.randrange(1, 3))
        self.store.update(reader, [Interest(id=n, pattern=p, start=start) for n, p in enumerate(patterns)], self.now)
        self.readers.append(reader)
        return None

    def fetch(self) -> None:
        if self.readers:
            reader = self.random.choice(self.readers)
            limits = (0, 1, 2, 20)
            demand = {
                id: Demand(self.random.choice(limits), self.random.choice((None, None, 50))) for id in reader.interests
            }
            self.deliveries += self.store.fetch(reader, demand, self.now)[0]

    def settle(self) -> None:
        self.random.shuffle(self.deliveries)
        count = self.random.randrange(8)
        taken, self.deliveries = self.deliveries[:count], self.deliveries[count:]
        outcomes = (Outcome.ACK, Outcome.ACK, Outcome.NACK, Outcome.RELEASE, Outcome.ATTEMPT)
        settlements = [
            Settlement(
                each,
                self.random.choice(outcomes),
                delay_ns=self.random.choice((0, SECOND)),
                pass_key=self.random.choice((True, False)),
            )
            for each in taken
        ]
        self.store.commit([], settlements, self.now)

    def unsubscribe(self) -> None:
        if self.readers:
            self.store.close_reader(self.readers.pop(self.random.randrange(len(self.readers))), self.now)

    def beat(self) -> None:
        for owner in self.owners:
            self.store.beat(owner, self.now)

    def wait(self) -> None:
        self.time += self.random.choice((1, 6, 40)) * SECOND
        self.store.advance(self.now)

    def tidy(self) -> None:
        self.store.tidy(self.now, self.random.choice((1, 10, 1000)))

    def leave(self) -> None:
        self._gone(self.store.disconnect)

    def die(self) -> None:
        self._gone(self.store.give_up)

    def _gone(self, end) -> None:
        if len(self.owners) > 1:
            owner = self.owners.pop(self.random.randrange(len(self.owners)))
            end(owner, self.now)
            self.readers = [reader for reader in self.readers if reader.owner != owner]

    def declare(self) -> None:
        choose = self.random.choice
        retention = choose((None, Retention(count=5), Retention(age=3.0), Retention(bytes=100)))
        overflow = choose(("block", "drop_old", "drop_new", "reject"))
        config = ChannelConfig(choose(CHANNELS), capacity=choose((None, 5, 20)), overflow=overflow, retention=retention)
        self.store.declare(config, self.now)

    def remove(self) -> None:
        target = self.random.choice((GroupRef("g"), GroupRef("h", "a.x"), ChannelRef("a.y")))
        self.store.remove(target, self.now)
        if isinstance(target, GroupRef):
            self.readers = [reader for reader in self.readers if reader.group != target.group]

    def seek(self) -> None:
        if self.readers:
            reader = self.random.choice(self.readers)
            interest = self.random.choice(list(reader.interests))
            if self.store.fetch(reader, {}, Moment(0, 0)).open:
                self.store.seek(reader, interest, self.random.choice(("beginning", "new", "@5")), self.now)


@pytest.mark.parametrize("seed", range(25))
def test_the_rules_of_a_check_hold_after_every_step(seed: int) -> None:
    run, done = Run(seed), []
    for _ in range(STEPS):
        done.append(run.step())
        findings = list(looked_through(run.connection))
        assert not findings, (done[-8:], list(map(str, findings)))
    assert not look(run.connection).findings
