"""What one process does with one partition, in any order, against a plain model."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from neuralcore.messaging.transport import Delivery, Envelope, Outcome, Settlement
from neuralcore_transports.kafka.window import METADATA_BYTES, Commit, Moment, Window
from tests.transports.kafka.fakes import SECOND, Hands, a_clock, record_of

ACK, NACK, RELEASE, ATTEMPT = Outcome.ACK, Outcome.NACK, Outcome.RELEASE, Outcome.ATTEMPT
MS = 1_000_000


@dataclass
class Known:
    failed: int = 0
    suspect: bool = False
    due: int = 0
    """Wall clock."""


@dataclass
class Stored:
    """The broker's last commit, and what was true when it was taken."""

    commit: Commit
    clean: bool
    settled: set[int] = field(default_factory=set)
    noted: dict[int, Known] = field(default_factory=dict)


class OnePartition(RuleBasedStateMachine):
    """A log, a broker that keeps commits, and one owner after another."""

    limit = METADATA_BYTES
    deliveries = Bundle("deliveries")

    def __init__(self) -> None:
        super().__init__()
        self.clock = a_clock()
        self.log: dict[int, tuple[Envelope, int]] = {}
        """With the time at which it may be handed out."""
        self.end = 0
        self.settled: set[int] = set()
        self.noted: dict[int, Known] = {}
        self.handled: set[str] = set()
        """Dedup ids of what was acknowledged."""
        self.suppressed: dict[int, int] = {}
        self.begin(Window(0, limit=self.limit), {})
        self.stored = Stored(self.window.commit(clean=True), clean=True)

    def begin(self, window: Window, known: dict[int, Known]) -> None:
        self.hands = Hands(window, clock=self.clock)
        self.arriving = window.position
        self.read = window.position
        self.known = known
        self.out: dict[int, Delivery] = {}
        self.attempted: set[int] = set()
        self.holders: dict[str, int] = {}
        self.passed: set[int] = set()
        self.retrying = {offset for offset, each in known.items() if each.due}
        """Waiting since an earlier owner's days."""
        self.failed_in_place = set(self.retrying)
        """They keep their keys."""
        self.first: dict[str, int] = {}
        self.handed: set[int] = set()

    @property
    def window(self) -> Window:
        return self.hands.window

    def get(self, offset: int) -> Known:
        return self.known.get(offset) or Known(suspect=offset < self.suspects_until)

    # The log

    @initialize(count=st.integers(1, 10))
    def some(self, count: int) -> None:
        for n in range(count):
            self.publish(100 + n, [None, "k", "l"][n % 3], 0, 0, 1)

    @rule(
        id=st.integers(0, 30),
        key=st.sampled_from([None, "k", "l"]),
        gap=st.sampled_from([0, 0, 0, 1, 4]),
        delay=st.sampled_from([0, 0, 0, SECOND, 5 * SECOND]),
        count=st.integers(1, 4),
    )
    def publish(self, id: int, key: str | None, gap: int, delay: int, count: int) -> None:
        self.settled.update(range(self.end, self.end + gap))
        self.end += gap
        for n in range(count):
            envelope = Envelope(id=f"{id}.{n}", channel="orders", body=b"", key=key, delay_ns=delay)
            self.log[self.end] = envelope, self.clock.time_ns() + delay if delay else 0
            self.end += 1

    @rule(limit=st.integers(1, 8))
    def arrive(self, limit: int) -> None:
        found = [offset for offset in range(self.arriving, self.end) if offset in self.log][:limit]
        for offset in found:
            envelope, due = self.log[offset]
            record = record_of(envelope, offset, due - envelope.delay_ns if due else self.clock.time_ns())
            self.hands.arrive(record)
            self.arriving = offset + 1

    @rule(ns=st.sampled_from([1, MS, SECOND, 6 * SECOND]))
    def wait(self, ns: int) -> None:
        self.clock.advance(ns)

    # Commits

    @rule(ahead=st.integers(0, 6), what=st.sampled_from(["stored", "stored", "stored", "lost", "unknown"]))
    def commit(self, ahead: int, what: str) -> None:
        commit = self.window.commit(clean=False, ahead=ahead, now=Moment.now(self.clock))
        if what != "lost":
            self.store(commit, clean=False)
        if what == "stored":
            self.window.committed(commit)
        else:
            self.window.not_committed()

    def store(self, commit: Commit, *, clean: bool) -> None:
        noted = {offset: Known(each.failed, each.suspect, each.due) for offset, each in self.noted.items()}
        self.stored = Stored(commit, clean, set(self.settled), noted)

    # Handing out

    @rule(target=deliveries, limit=st.integers(1, 6))
    def take(self, limit: int) -> object:
        found = self.hands.take(limit)
        assert len(found) <= limit
        self.note_what_was_read()
        for delivery in found:
            self.check(delivery)
        return tuple(found)

    @rule(target=deliveries, limit=st.integers(1, 6))
    def work(self, limit: int) -> object:
        self.arrive(limit)
        self.commit(limit, "stored")
        return self.take(limit)

    def note_what_was_read(self) -> None:
        for offset in range(self.read, self.window.next):
            if offset not in self.log or offset in self.settled:
                continue
            id = self.log[offset][0].id
            first = self.first.setdefault(id, offset)
            if first != offset:
                self.settled.add(offset)
                self.suppressed[offset] = first
                self.noted.pop(offset, None)
            elif self.get(offset).suspect:
                self.noted[offset] = self.get(offset)
        self.read = max(self.read, self.window.next)

    def check(self, delivery: Delivery) -> None:
        offset = delivery.lease.offset  # type: ignore[attr-defined]
        envelope, due = self.log[offset]
        known = self.get(offset)
        assert delivery.envelope.id == envelope.id
        assert offset not in self.out, "it is out already"
        assert offset not in self.settled
        assert offset < self.window.reserved
        assert (delivery.attempt, delivery.suspect) == (known.failed + 1, known.suspect), offset
        assert self.clock.time_ns() > max(due, known.due) - MS, "too early"
        if envelope.key is not None:
            self.check_order(envelope.key, offset)
        self.out[offset] = delivery
        self.handed.add(offset)

    def check_order(self, key: str, offset: int) -> None:
        holder = self.holders.setdefault(key, offset)
        assert holder == offset, "its key is somebody else's"
        if offset in self.passed or offset in self.failed_in_place:
            return
        for earlier in range(self.window.position, offset):
            if earlier in self.settled or earlier in self.passed or earlier not in self.log:
                continue
            other, due = self.log[earlier]
            waits = max(due, self.get(earlier).due if earlier in self.retrying else 0) > self.clock.time_ns() - MS
            assert other.key != key or waits, f"{earlier} comes before {offset}"

    # Settling

    def settle(
        self, found: tuple[Delivery, ...], outcome: Outcome, *, delay_ns: int = 0, pass_key: bool = False
    ) -> None:
        for delivery in found:
            offset = delivery.lease.offset  # type: ignore[attr-defined]
            partition = delivery.lease.partition  # type: ignore[attr-defined]
            if partition is not self.hands.partition:  # of an earlier owner, which has gone or only given up
                assert partition.owned or not partition.settle(Settlement(delivery, outcome), 0)
                continue
            mine = self.out.get(offset) is delivery
            assert self.hands.settle(delivery, outcome, delay_ns=delay_ns, pass_key=pass_key) == mine
            if mine:
                self.settled_one(offset, outcome, delay_ns, pass_key=pass_key)

    def settled_one(self, offset: int, outcome: Outcome, delay_ns: int, *, pass_key: bool) -> None:
        envelope, known = self.log[offset][0], self.get(offset)
        if outcome is ATTEMPT:
            self.attempted.add(offset)
            self.noted[offset] = Known(known.failed + 1, suspect=True)
            return
        del self.out[offset]
        keeps_key = outcome is NACK and not pass_key
        if envelope.key is not None and not keeps_key:
            del self.holders[envelope.key]
        if outcome is ACK:
            self.settled.add(offset)
            self.handled.add(envelope.id)
            self.noted.pop(offset, None)
        elif outcome is NACK:
            due = self.clock.time_ns() + delay_ns if delay_ns else 0
            self.known[offset] = Known(known.failed + 1, suspect=False, due=due)
            self.noted[offset] = self.known[offset]
            self.retrying.discard(offset)
            if not keeps_key or envelope.key is None:
                self.passed.add(offset)
            else:
                self.failed_in_place.add(offset)
        elif offset in self.attempted:
            self.noted[offset] = Known(known.failed, known.suspect)
        if outcome is RELEASE:
            self.known[offset] = Known(known.failed, known.suspect)
            self.failed_in_place.discard(offset)
        self.attempted.discard(offset)

    @rule(found=consumes(deliveries))
    def ack(self, found: tuple[Delivery, ...]) -> None:
        self.settle(found, ACK)

    @rule(found=deliveries, delay_ns=st.sampled_from([0, 0, SECOND, 5 * SECOND]), pass_key=st.booleans())
    def nack(self, found: tuple[Delivery, ...], delay_ns: int, pass_key: bool) -> None:
        self.settle(found, NACK, delay_ns=delay_ns, pass_key=pass_key)

    @rule(found=deliveries)
    def release(self, found: tuple[Delivery, ...]) -> None:
        self.settle(found, RELEASE)

    @rule(found=deliveries)
    def attempt(self, found: tuple[Delivery, ...]) -> None:
        self.settle(found, ATTEMPT)

    # Ending

    @rule()
    def crash(self) -> None:
        self.goes_on()

    @rule(suspects=st.booleans())
    def give_up(self, suspects: bool) -> None:
        for offset in self.out:
            known = self.get(offset)
            if suspects:
                self.noted[offset] = Known(known.failed + (offset in self.attempted), suspect=True)
            elif offset in self.attempted:
                self.noted[offset] = Known(known.failed, known.suspect)
        out = set(self.out)
        commit = self.hands.partition.give_up(suspects=suspects)
        assert not self.hands.take(9)
        self.store(commit, clean=self.seen_all_suspects)
        if not suspects:
            self.handed -= out
        self.goes_on()

    @property
    def seen_all_suspects(self) -> bool:
        return self.suspects_until <= self.window.next

    suspects_until = 0

    def goes_on(self) -> None:
        """With what the broker has."""
        stored = self.stored
        handed = set() if stored.clean else self.handed
        self.suspects_until = stored.commit.offset if stored.clean else stored.commit.reserved
        self.settled = {offset for offset in self.settled if offset not in self.log} | stored.settled
        known: dict[int, Known] = {}
        for offset in self.log:
            each = stored.noted.get(offset, Known())
            waits = each.due // MS > self.clock.time_ns() // MS
            suspect = each.suspect or (offset < self.suspects_until and not waits)
            in_hand = offset in handed and not waits
            assert offset in self.settled or suspect or not in_hand, "it was in somebody's hands"
            known[offset] = Known(each.failed, suspect, each.due)
        self.noted = {offset: each for offset, each in stored.noted.items() if offset not in self.settled}
        window = Window.restored(
            stored.commit.offset, stored.commit.metadata, now=Moment.now(self.clock), limit=self.limit
        )
        assert all(offset in self.settled for offset in range(window.position))
        self.begin(window, known)

    @invariant()
    def nothing_open_is_passed(self) -> None:
        first = min((offset for offset in self.log if offset not in self.settled), default=self.end)
        assert self.window.position <= first
        assert self.hands.partition.in_flight == len(self.out)
        assert {id(each) for each in self.hands.partition.out} == {id(each) for each in self.out.values()}

    @precondition(lambda self: self.log)
    @invariant()
    def what_is_settled_is_known_to_be(self) -> None:
        for offset in range(self.read):
            assert self.window.is_settled(offset) == (offset in self.settled)

    def teardown(self) -> None:
        """Whatever happened: a patient owner gets everything."""
        self.settle(tuple(self.out.values()), RELEASE)
        for _ in range(3 * len(self.log) + 3):
            self.arrive(100)
            commit = self.window.commit(clean=False, ahead=100)
            self.window.committed(commit)
            self.settle(self.take(100), ACK)
            self.clock.advance(6 * SECOND)
            if all(offset in self.settled for offset in self.log):
                break
        assert all(offset in self.settled for offset in self.log), "something is never handed out"
        assert self.window.position == max([*self.log, -1]) + 1
        assert self.handled == {envelope.id for envelope, _ in self.log.values()}, "something is lost"
        for offset, first in self.suppressed.items():
            assert offset != first


TestOnePartition = OnePartition.TestCase
TestOnePartition.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
