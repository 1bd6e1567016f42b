"""What one process does with one partition: by examples, and in any order against a plain model."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from neuralcore.messaging.transport import Delivery, Envelope, Outcome, Settlement
from neuralcore_transports.kafka import partition as module
from neuralcore_transports.kafka.dedup import Seen
from neuralcore_transports.kafka.window import METADATA_BYTES, Commit, Moment, Window
from tests.transports.kafka.fakes import FakeRecord, Hands, a_clock, record_of

SECOND = 10**9
ACK, NACK, RELEASE, ATTEMPT = Outcome.ACK, Outcome.NACK, Outcome.RELEASE, Outcome.ATTEMPT


def crashed(hands: Hands) -> Hands:
    """The next owner, after the last commit."""
    return after(hands.window.commit(clean=False, now=Moment.now(hands.clock)), hands)


def after(commit: Commit, hands: Hands, *, jump: float = 0) -> Hands:
    """``jump``: hours by which the wall clock is another one there."""
    hands.clock.jump(round(jump * 3600 * SECOND))
    return Hands(Window.restored(commit.offset, commit.metadata, now=Moment.now(hands.clock)), clock=hands.clock)


# Handing out


def test_messages_are_handed_out_in_order_and_once():
    hands = Hands()
    hands.publish("a", "b", "c", "d")
    assert hands.ids(2) == ["a", "b"]
    assert hands.ids() == ["c", "d"]
    assert hands.ids() == []
    assert hands.partition.in_flight == len(hands.partition.out) == 4


def test_a_delivery_says_whose_it_is():
    hands = Hands()
    hands.publish("a")
    (delivery,) = hands.take()
    assert (delivery.interest, delivery.attempt, delivery.suspect) == (7, 1, False)
    assert delivery.envelope.id == "a"


def test_nothing_is_handed_out_before_the_broker_knows_that_it_may_be():
    hands = Hands()
    hands.arrive(*(record_of(Envelope(id=id, channel="orders", body=b""), n) for n, id in enumerate("abc")))
    assert hands.ids() == []
    hands.reserve(2)
    assert hands.ids() == ["a", "b"]
    hands.reserve(0)
    assert hands.ids() == []
    hands.reserve(1)
    assert hands.ids() == ["c"]


def test_it_says_how_many_of_what_arrived_wait_no_more():
    hands = Hands()
    hands.publish("a", "a", "b", "c", "d")
    hands.take(2)
    assert hands.taken == [3], "the duplicate too"
    assert hands.partition.buffered == 2
    hands.take(1)
    hands.take(0)
    assert hands.taken == [3, 1]


def test_one_that_is_going_hands_nothing_out_but_takes_settlements():
    hands = Hands()
    hands.publish("a", "b")
    (delivery,) = hands.take(1)
    hands.partition.closing = True
    assert hands.take() == []
    hands.ack(delivery)
    assert hands.window.position == 1


def test_one_that_has_gone_does_neither():
    hands = Hands()
    hands.publish("a", "b")
    (delivery,) = hands.take(1)
    hands.partition.give_up(suspects=True)
    hands.publish("c", first=2)
    assert hands.take() == []
    assert not hands.settle(delivery, ACK)


# Settling


def test_what_is_settled_in_whatever_order_moves_the_position_only_without_gaps():
    hands = Hands()
    hands.publish("a", "b", "c")
    a, b, c = hands.take()
    hands.ack(c, b)
    assert hands.window.position == 0
    hands.ack(a)
    assert hands.window.position == 3
    assert hands.partition.in_flight == 0


@pytest.mark.parametrize("outcome", Outcome)
def test_a_delivery_is_settled_once(outcome):
    hands = Hands()
    hands.publish("a")
    (delivery,) = hands.take()
    hands.ack(delivery)
    assert not hands.settle(delivery, outcome)
    assert hands.partition.in_flight == 0


def test_an_old_delivery_does_not_settle_a_newer_one():
    hands = Hands()
    hands.publish("a")
    (old,) = hands.take()
    hands.settle(old, NACK)
    (new,) = hands.take()
    assert not hands.settle(old, ACK)
    assert hands.window.position == 0
    hands.ack(new)


def test_a_nack_counts_and_a_release_does_not():
    hands = Hands()
    hands.publish("a")
    attempts = []
    for outcome in (NACK, RELEASE, RELEASE, NACK, ACK):
        (delivery,) = hands.take()
        attempts.append(delivery.attempt)
        assert hands.settle(delivery, outcome)
    assert attempts == [1, 2, 2, 2, 3]


def test_a_failed_message_without_a_key_comes_behind_what_was_there():
    hands = Hands()
    hands.publish("a", "b", "c")
    (a,) = hands.take(1)
    hands.settle(a, NACK)
    hands.publish("d", first=3)
    assert hands.ids() == ["b", "c", "a", "d"]


def test_a_released_one_comes_where_it_was():
    hands = Hands()
    hands.publish("a", "b", "c")
    a, b = hands.take(2)
    hands.settle(b, RELEASE)
    hands.settle(a, RELEASE)
    assert hands.ids() == ["a", "b", "c"]


def test_a_retry_waits_its_time_on_a_clock_that_does_not_jump():
    hands = Hands()
    hands.publish("a")
    (a,) = hands.take()
    hands.settle(a, NACK, delay_ns=5 * SECOND)
    hands.clock.jump(3600 * SECOND)
    assert hands.ids() == []
    assert hands.partition.due == hands.clock.monotonic_ns() + 5 * SECOND
    hands.clock.advance(5 * SECOND)
    assert hands.ids() == ["a"]
    assert hands.partition.due is None


def test_a_message_may_be_published_with_a_delay():
    hands = Hands()
    late = Envelope(id="a", channel="orders", body=b"", key="k", delay_ns=2 * SECOND)
    hands.arrive(record_of(late, 0), record_of(Envelope(id="b", channel="orders", body=b"", key="k"), 1))
    hands.reserve()
    (b,) = hands.take()
    assert b.envelope.id == "b", "nobody waits for it"
    hands.clock.advance(2 * SECOND)
    assert hands.ids() == [], "it waits for its key"
    hands.ack(b)
    assert hands.ids() == ["a"]


# Keys


def test_messages_of_one_key_come_one_at_a_time_and_others_pass():
    hands = Hands()
    hands.publish("a", "b", key="k")
    hands.publish("c", first=2)
    a, c = hands.take()
    assert (a.envelope.id, c.envelope.id) == ("a", "c")
    hands.ack(a)
    assert hands.ids() == ["b"]


def test_a_failed_message_is_held_in_place_with_its_key():
    hands = Hands()
    hands.publish("a", "b", key="k")
    (a,) = hands.take()
    hands.settle(a, NACK, delay_ns=SECOND)
    assert hands.ids() == []
    hands.clock.advance(SECOND)
    assert hands.ids() == ["a"]


def test_also_after_a_crash():
    hands = Hands()
    hands.publish("a", "b", key="k")
    (a,) = hands.take()
    hands.settle(a, NACK, delay_ns=5 * SECOND)
    again = crashed(hands)
    again.publish("a", "b", key="k")
    assert again.ids() == []
    again.clock.advance(5 * SECOND)
    (a,) = again.take()
    assert (a.envelope.id, a.attempt) == ("a", 2)


@pytest.mark.parametrize("hours", [-2, 0, 2])
def test_a_retry_that_is_taken_over_waits_at_most_its_time_whatever_the_next_clock_says(hours):
    hands = Hands()
    hands.publish("a")
    (a,) = hands.take()
    hands.settle(a, NACK, delay_ns=5 * SECOND)
    again = after(hands.partition.give_up(suspects=False), hands, jump=hours)
    again.publish("a")
    assert again.ids() == (["a"] if hours > 0 else [])
    again.clock.advance(5 * SECOND)
    assert again.ids() == ([] if hours > 0 else ["a"])


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_delay_is_at_most_itself_whatever_the_next_clock_says(hours):
    hands = Hands()
    late = record_of(Envelope(id="a", channel="orders", body=b"", delay_ns=5 * SECOND), 0)
    hands.arrive(late)
    hands.reserve()
    assert hands.ids() == []
    again = after(hands.partition.give_up(suspects=False), hands, jump=hours)
    again.arrive(late)
    again.reserve()
    assert again.ids() == (["a"] if hours > 0 else [])
    again.clock.advance(5 * SECOND)
    assert again.ids() == ([] if hours > 0 else ["a"])


def test_or_its_successors_pass():
    hands = Hands()
    hands.publish("a", "b", "c", key="k")
    (a,) = hands.take()
    hands.settle(a, NACK, pass_key=True)
    order = []
    while found := hands.take():
        (delivery,) = found
        order.append(delivery.envelope.id)
        hands.ack(delivery)
    assert order == ["b", "c", "a"]


def test_a_released_one_of_a_key_comes_before_its_successors():
    hands = Hands()
    hands.publish("a", "b", key="k")
    (a,) = hands.take()
    assert hands.take() == []
    hands.settle(a, RELEASE)
    assert hands.ids() == ["a"]


# Suspects


def test_what_was_out_when_its_owner_vanished_is_suspect_and_counts_nothing():
    hands = Hands()
    hands.publish("a", "b", "c")
    a, b, _ = hands.take()
    hands.ack(b)
    hands.settle(a, NACK)
    again = crashed(hands)
    again.publish("a", "b", "c", "d")
    assert [(each.envelope.id, each.attempt, each.suspect) for each in again.take()] == [
        ("a", 2, True), ("c", 1, True), ("d", 1, False),
    ]  # fmt: skip


def test_a_stored_attempt_counts_when_its_owner_vanishes():
    hands = crashed_with_one_out()
    for attempt in (1, 2, 3):
        hands.publish("a")
        (a,) = hands.take()
        assert (a.attempt, a.suspect) == (attempt, True)
        assert hands.settle(a, ATTEMPT)
        hands = crashed(hands)


def crashed_with_one_out() -> Hands:
    hands = Hands()
    hands.publish("a")
    hands.take()
    return crashed(hands)


def test_a_stored_attempt_and_its_nack_count_once():
    hands = crashed_with_one_out()
    hands.publish("a")
    (a,) = hands.take()
    hands.settle(a, ATTEMPT)
    hands.settle(a, ATTEMPT)
    hands.settle(a, NACK)
    (a,) = hands.take()
    assert (a.attempt, a.suspect) == (2, False), "it lived through it"
    again = after(hands.partition.give_up(suspects=False), hands)
    again.publish("a")
    assert [(each.attempt, each.suspect) for each in again.take()] == [(2, False)]


def test_a_stored_attempt_that_is_released_counts_nothing():
    hands = crashed_with_one_out()
    hands.publish("a")
    (a,) = hands.take()
    hands.settle(a, ATTEMPT)
    hands.settle(a, RELEASE)
    (a,) = hands.take()
    assert (a.attempt, a.suspect) == (1, True), "but it is a suspect as before"
    again = crashed(hands)
    again.publish("a")
    assert [each.attempt for each in again.take()] == [1]


@pytest.mark.parametrize("stored", [False, True])
def test_a_suspect_that_has_not_begun_does_not_hold_up_a_partition_that_goes(stored):
    hands = crashed_with_one_out()
    hands.publish("a")
    (a,) = hands.take()
    if stored:
        assert hands.settle(a, ATTEMPT)
    hands.partition.closing = True
    assert not hands.settle(a, ATTEMPT)
    assert hands.partition.in_flight == 0
    assert not hands.settle(a, ACK)
    again = after(hands.partition.give_up(suspects=True), hands)
    again.publish("a")
    assert [(each.attempt, each.suspect) for each in again.take()] == [(1, True)]


@pytest.mark.parametrize(("suspects", "attempts"), [(True, [2, 1, 1]), (False, [1, 1, 1])])
def test_who_gives_up_says_whether_what_is_out_is_suspect(suspects, attempts):
    hands = Hands()
    hands.publish("a", "b", "c")
    a, _ = hands.take(2)
    hands.settle(a, ATTEMPT)
    again = after(hands.partition.give_up(suspects=suspects), hands)
    again.publish("a", "b", "c")
    found = again.take()
    assert [each.attempt for each in found] == attempts
    assert [each.suspect for each in found] == [suspects, suspects, False]


# Duplicates


def test_a_duplicate_is_suppressed_settled_and_counted():
    hands = Hands()
    hands.publish("a", "b", "a", "c")
    found = hands.take()
    assert [each.envelope.id for each in found] == ["a", "b", "c"]
    assert hands.counted == ["duplicates_suppressed"]
    hands.ack(*found)
    assert hands.window.position == 4


def test_a_retry_and_a_replay_are_no_duplicates():
    hands = Hands()
    hands.publish("a")
    (a,) = hands.take()
    hands.settle(a, NACK)
    hands.arrive(record_of(Envelope(id="a", channel="orders", body=b"", replay=1), 1))
    hands.reserve()
    assert hands.ids() == ["a", "a"]


def test_after_the_window_a_message_is_a_new_one():
    hands = Hands(seen=Seen(60 * SECOND, 100))
    hands.publish("a")
    hands.ack(*hands.take())
    hands.clock.advance(61 * SECOND)
    hands.publish("a", first=1)
    assert hands.ids() == ["a"]


# Seeking


def test_seeking_takes_everything_back_and_goes_on_elsewhere():
    hands = Hands()
    hands.publish("a", "b", "c", "d")
    a, b = hands.take(2)
    hands.settle(b, NACK, delay_ns=SECOND)
    (c,) = hands.take(1)
    assert hands.partition.seek(Window(1, epoch=9)) == [a, c]
    assert hands.partition.in_flight == 0
    assert (hands.partition.due, hands.partition.buffered, hands.partition.out) == (None, 0, [])
    assert not hands.settle(a, ACK)
    hands.publish("b", "c", "d", first=1)
    assert [(each.envelope.id, each.attempt) for each in hands.take()] == [("b", 1), ("c", 1), ("d", 1)]


def test_also_keys_are_free_then():
    hands = Hands()
    hands.publish("a", "b", key="k")
    hands.take()
    hands.partition.seek(Window(0, epoch=9))
    hands.publish("a", "b", key="k")
    assert hands.ids() == ["a"]


# Undecodable


def test_a_record_that_is_no_message_is_handed_out_like_others():
    hands = Hands()
    hands.arrive(FakeRecord(0, b"x", b"\xff", [("ce_id", b"\xff"), ("ce_ncpriority", b"9" * 30)]))
    hands.reserve()
    (delivery,) = hands.take()
    hands.settle(delivery, NACK)
    hands.ack(*hands.take())
    assert hands.window.position == 1


# Room


def test_when_too_many_wait_the_partition_waits_with_them(monkeypatch):
    monkeypatch.setattr(module, "_HELD", 3)
    hands = Hands()
    hands.publish(*"abcdef", key="k")
    hands.publish("g", first=6)
    (a,) = hands.take()
    assert hands.partition.buffered == 3
    hands.ack(a)
    assert hands.ids() == ["b"]
    assert hands.partition.buffered == 2


def filled(limit: int) -> Hands:
    """The first is out, and of what follows as much is settled, every second one, as a commit remembers."""
    hands = Hands(Window(0, limit=limit))
    hands.publish(*(str(n) for n in range(limit)))
    hands.partition.demanded = 10
    while not hands.window.full:
        _, settled = hands.take(2)
        hands.ack(settled)
    return hands


def test_when_a_commit_would_not_hold_more_the_partition_waits():
    hands = filled(200)
    assert hands.partition.buffered
    assert hands.take() == []
    hands.ack(*hands.partition.out)
    assert len(hands.take()) == hands.partition.in_flight > 0


def test_and_its_next_owner_goes_on_all_the_same():
    hands = filled(200)
    commit = hands.partition.give_up(suspects=True)
    again = Hands(Window.restored(commit.offset, commit.metadata, limit=200), clock=hands.clock)
    again.publish(*(str(n) for n in range(200)))
    assert again.ids(1) == ["0"]


# What the next commit says


def test_a_commit_is_wanted_when_there_is_demand_and_nothing_may_be_handed_out():
    hands = Hands()
    now = hands.clock.monotonic_ns()
    assert not hands.partition.wants_commit(now)
    hands.arrive(record_of(Envelope(id="a", channel="orders", body=b""), 0))
    assert hands.partition.wants_commit(now)
    hands.partition.demanded = 0
    assert not hands.partition.wants_commit(now)


def test_and_when_something_was_settled():
    hands = Hands()
    hands.publish("a")
    (a,) = hands.take()
    hands.reserve(0)
    assert not hands.partition.wants_commit(hands.clock.monotonic_ns())
    hands.ack(a)
    assert hands.partition.wants_commit(hands.clock.monotonic_ns())


def test_and_when_less_will_be_handed_out_than_was_said():
    hands = Hands()
    hands.publish("a")
    hands.take()
    assert hands.window.reserved - hands.window.next > 0
    hands.clock.advance(SECOND)
    assert hands.partition.wants_commit(hands.clock.monotonic_ns())
    assert hands.partition.ahead == 0


def test_not_more_is_said_than_there_is_demand_for():
    hands = Hands()
    hands.publish(*(str(n) for n in range(50)))
    hands.partition.demanded = 5
    assert hands.partition.ahead == 5
    hands.partition.demanded = 10**6
    assert hands.partition.ahead == 50


# In any order


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


MS = 1_000_000


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


# Offsets that hold no message


def test_what_is_behind_a_transactions_mark_is_reserved_as_messages_are() -> None:
    """A commit that makes room for one message makes it for the next one that there is."""
    hands = Hands()
    hands.arrive(*(record_of(Envelope(id=id, channel="orders", body=b""), at) for id, at in (("a", 0), ("b", 40))))
    hands.reserve(1)
    assert hands.ids() == ["a"]
    assert hands.partition.wants_commit(hands.clock.monotonic_ns())
    hands.reserve(1)
    assert hands.ids() == ["b"]


def test_the_end_of_the_partition_passes_what_is_nobodys() -> None:
    hands = Hands()
    hands.publish("a")
    hands.ack(*hands.take())
    assert hands.partition.ended(3)
    assert hands.window.position == 3
    assert not hands.partition.ended(3), "it is no news"


def test_it_is_passed_after_what_came_before() -> None:
    hands = Hands()
    hands.publish("a", "b")
    assert not hands.partition.ended(3)
    a, b = hands.take()
    hands.ack(b)
    assert hands.window.position == 0
    hands.ack(a)
    assert hands.window.position == 3
