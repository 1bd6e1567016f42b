"""The store's time across reboots: it never goes back, and is ahead by no more than the wall clock was wrong."""

from __future__ import annotations

import asyncio
import random

import pytest

from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.transport import Demand, Envelope, Interest
from neuralcore_transports.sqlite import clock as clocks
from neuralcore_transports.sqlite.clock import StoreClock
from neuralcore_transports.sqlite.store.fetch import Reader
from neuralcore_transports.sqlite.store.moment import Limits
from neuralcore_transports.sqlite.store.store import Store
from neuralcore_transports.sqlite.store.transaction import Book
from tests.transports.sqlite.model import connection

SECOND = 10**9


class Machine:
    """True time, and what its clocks make of it."""

    def __init__(self):
        self.true = 5_000 * SECOND
        self.wrong = 0
        self.boots = 0
        self.booted = 0

    def time_ns(self):
        return 1_750_000_000 * SECOND + self.true + self.wrong

    def monotonic_ns(self):
        raise AssertionError("the store's time is not the process's")

    def boottime_ns(self):
        return self.true - self.booted

    def boot_id(self):
        return f"boot {self.boots}"

    def reboot(self, seconds, *, wrong=None):
        """Off for so long; afterwards the wall clock is wrong by so much."""
        self.true += round(seconds * SECOND)
        self.boots += 1
        self.booted = self.true
        if wrong is not None:
            self.wrong = round(wrong * SECOND)


@pytest.fixture
def machine(monkeypatch):
    made = Machine()
    monkeypatch.setattr(clocks, "boot_id", made.boot_id)
    monkeypatch.setattr(clocks, "boottime_ns", made.boottime_ns)
    return made


@pytest.fixture
def file():
    made = connection()
    yield made
    made.close()


def join(machine, file):
    clock = StoreClock(machine)
    file.execute("BEGIN IMMEDIATE")
    clock.join(file)
    file.execute("COMMIT")
    return clock


def remember(clock, file):
    file.execute("BEGIN IMMEDIATE")
    clock.remember(file)
    file.execute("COMMIT")
    return clock.now().mono


def test_processes_of_one_boot_agree(machine, file):
    first = join(machine, file)
    machine.true += 7 * SECOND
    machine.wrong = -3600 * SECOND
    assert join(machine, file).now() == first.now()


def test_the_time_that_the_machine_was_off_has_passed(machine, file):
    before = remember(join(machine, file), file)
    machine.reboot(3600)
    assert join(machine, file).now().mono == before + 3600 * SECOND


def test_a_wall_clock_that_was_set_back_between_boots_stops_it_and_no_more(machine, file):
    before = remember(join(machine, file), file)
    machine.reboot(60, wrong=-7200)
    clock = join(machine, file)
    assert clock.now().mono == before
    machine.true += 5 * SECOND
    assert clock.now().mono == before + 5 * SECOND


def test_a_wall_clock_that_was_set_forward_between_boots_makes_it_run_ahead_by_that(machine, file):
    before = remember(join(machine, file), file)
    machine.reboot(60, wrong=7200)
    assert join(machine, file).now().mono == before + 7260 * SECOND


def test_the_second_process_of_a_new_boot_takes_the_first_ones_time_over(machine, file):
    remember(join(machine, file), file)
    machine.reboot(60)
    first = join(machine, file)
    machine.true += SECOND
    machine.wrong = 500 * SECOND
    assert join(machine, file).now() == first.now()


@pytest.mark.parametrize("seed", range(200))
def test_whatever_happens_to_the_clocks(machine, file, seed):
    """Never back behind what was remembered, and never ahead by more than the wall clock was wrong."""
    rng = random.Random(seed)
    clock = join(machine, file)
    last, due_at, forward = remember(clock, file), machine.true, 0
    started = clock.now().mono
    for _ in range(rng.randrange(1, 12)):
        off, wrong = rng.choice((0, 1, 60, 86_400)), rng.choice((None, 0, -7200, 7200, -86_400 * 365))
        known = machine.wrong
        machine.reboot(off, wrong=wrong)
        forward += max(0, machine.wrong - known)
        clock = join(machine, file)
        assert clock.now().mono >= last
        for _ in range(rng.randrange(4)):
            machine.true += rng.randrange(100) * SECOND
            if rng.random() < 0.3:
                jump = rng.choice((-3600, 3600)) * SECOND
                machine.wrong += jump
            last = remember(clock, file)
        passed, really = clock.now().mono - started, machine.true - due_at
        assert passed <= really + forward, "a delay would be early by more than the wall clock was wrong"


def test_leases_of_an_older_boot_are_recovered_at_once(machine, file):
    limits = Limits(lease=3600 * SECOND)
    store = Store(Book(file, level="OFF"), limits)
    old = take_one(store, join(machine, file))
    machine.reboot(1)
    clock = join(machine, file)
    owner = store.connect("new", clock.boot, clock.now())
    assert store.others(owner) == [(old, "boot 0")]
    store.give_up(old, clock.now())
    reader = subscribe(store, owner, clock)
    (delivery,), *_ = store.fetch(reader, {1: Demand(9)}, clock.now())
    assert delivery.suspect


def take_one(store, clock):
    """Publish one message, and fetch it; who has it."""
    owner = store.connect("old", clock.boot, clock.now())
    reader = subscribe(store, owner, clock)
    store.commit([Envelope(id="1", channel="jobs", body=b"1")], (), clock.now())
    deliveries, *_ = store.fetch(reader, {1: Demand(9)}, clock.now())
    assert len(deliveries) == 1
    return owner


def subscribe(store, owner, clock):
    reader = Reader(owner, "g")
    store.update(reader, [Interest(id=1, pattern="jobs")], clock.now())
    return reader


async def test_a_bus_of_this_boot_has_what_an_older_boot_was_handling(tmp_path, monkeypatch):
    """Long before the lease would have run out."""
    path = tmp_path / "bus.db"
    with monkeypatch.context() as older:
        older.setattr(clocks, "boot_id", lambda: "an older boot")
        held = connection(str(path))
        clock = StoreClock(Wall())
        held.execute("BEGIN IMMEDIATE")
        clock.join(held)
        held.execute("COMMIT")
        take_one(Store(Book(held), Limits(lease=3600 * SECOND)), clock)
        held.close()
    came = asyncio.get_running_loop().create_future()
    async with MessageBus(f"sqlite://{path}?lease=3600") as bus:

        async def handle(message):
            came.set_result(message)

        await bus.subscribe("jobs", handle, group="g").ready()
        message = await asyncio.wait_for(came, 10)
        assert message.id == "1"


class Wall:
    def time_ns(self):
        return 1_750_000_000 * SECOND
