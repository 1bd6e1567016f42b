"""What a commit's metadata remember, against a plain set of offsets."""

from __future__ import annotations

import itertools
from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralcore_transports.kafka.runs import Runs
from neuralcore_transports.kafka.window import METADATA_BYTES, BadMetadata, Commit, Handing, Moment, Window

AHEAD = 1000


@given(st.lists(st.integers(0, 60), unique=True))
def test_runs_are_the_set_of_what_was_added(offsets):
    runs = Runs()
    for offset in offsets:
        runs.add(offset)
    assert [n for start, end in runs for n in range(start, end)] == sorted(offsets)
    assert all(offset in runs for offset in offsets)
    assert not any(n in runs for n in range(-2, 65) if n not in offsets)
    pairs = list(runs)
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(pairs)), "neighbours are one run"


LATE = Moment(2_000_000_000_000, 2_000_000_000_000)
"""Whatever waited is due by then."""


def restored(commit: Commit, limit: int = METADATA_BYTES, now: Moment = LATE) -> Window:
    return Window.restored(commit.offset, commit.metadata, limit=limit, now=now)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("see"), st.integers(0, 3)),
        st.tuples(st.just("settle"), st.integers(0, 30)),
        st.tuples(st.just("fail"), st.integers(0, 30)),
        st.tuples(st.just("suspect"), st.integers(0, 30)),
        st.tuples(st.just("delay"), st.integers(0, 30)),
        st.tuples(st.just("commit"), st.integers(-1, 4)),
    ),
    max_size=60,
)


class Model:
    """Plain sets; and what they were when the last commit was taken."""

    def __init__(self, first: int, limit: int = METADATA_BYTES) -> None:
        self.first = self.last = first
        self.window = Window(first, epoch=3, limit=limit)
        self.held: list[int] = []
        self.settled: set[int] = set()
        self.known: dict[int, Handing] = {}
        self.keep(self.window.commit(clean=True), suspects=first)

    def keep(self, commit: Commit, suspects: int) -> None:
        self.window.committed(commit)
        self.kept = commit, set(self.settled), dict(self.known), suspects

    def step(self, verb: str, what: int) -> None:
        if verb == "see":
            self.settled.update(range(self.last, self.last + what))  # so many offsets hold nothing
            self.last += what
            assert self.window.see(self.last) == Handing()
            self.held.append(self.last)
            self.last += 1
        elif verb == "commit":
            clean = what < 0
            commit = self.window.commit(clean=clean, ahead=max(0, what))
            assert commit.reserved == self.last + max(0, what)
            self.keep(commit, suspects=self.first if clean else commit.reserved)
        elif self.held:
            offset = self.held[what % len(self.held)]
            if verb == "settle":
                self.held.remove(offset)
                self.settled.add(offset)
                self.known.pop(offset, None)
                self.window.settle(offset)
            else:
                failed = self.known.get(offset, Handing()).failed + 1
                known = Handing(failed, verb == "suspect", 1_772_600_000_000 + what if verb == "delay" else 0)
                self.known[offset] = known
                self.window.note(offset, known.failed, suspect=known.suspect, due_ms=known.due_ms)

    @property
    def open(self) -> list[int]:
        return [n for n in range(self.first, self.last) if n not in self.settled]


@settings(max_examples=300, deadline=None)
@given(STEPS, st.integers(0, 1 << 40))
def test_a_restored_window_knows_what_was_committed(steps, first):
    model = Model(first)
    for verb, what in steps:
        model.step(verb, what)
        assert model.window.position == (model.open[0] if model.open else model.last)
        assert model.window.unsettled(model.last) == len(model.open)
    assert all(model.window.is_settled(n) == (n in model.settled) for n in range(first, model.last))
    assert model.window.truncated == 0

    commit, settled, known, suspects = model.kept
    again = restored(commit)
    assert again.epoch == 3
    assert again.reserved == again.position == commit.offset, "what an earlier owner has reserved is not ours"
    for offset in range(commit.offset, model.last + 3):
        assert again.is_settled(offset) == (offset in settled)
        found = again.see(offset)
        if offset in settled:
            assert found is None
        else:
            expected = known.get(offset, Handing())
            suspect = expected.suspect or offset < suspects
            assert found == Handing(expected.failed, suspect)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.integers(20, 60))
def test_a_commit_without_room_for_all_loses_no_message(steps, limit):
    """Settled ones may come again, and attempts be forgotten; nothing else."""
    model = Model(0, limit)
    for verb, what in steps:
        model.step(verb, what)
        assert len(model.kept[0].metadata) <= limit
    commit, settled, known, suspects = model.kept
    again = restored(commit)
    assert again.epoch == 3
    assert all(n in settled for n in range(commit.offset))
    for offset in range(commit.offset, model.last + 3):
        found = again.see(offset)
        if found is None:
            assert offset in settled
        else:
            assert found.suspect or offset >= suspects
            assert found.failed in (0, known.get(offset, Handing()).failed)


def test_what_an_owner_that_vanished_may_have_had_is_suspect():
    window = Window(100)
    window.committed(window.commit(clean=False, ahead=10))
    for offset in range(100, 105):
        window.see(offset)
    again = restored(window.commit(clean=False, ahead=5))
    assert [offset for offset in range(100, 120) if again.see(offset).suspect] == list(range(100, 110))


def test_what_waited_for_its_retry_when_its_owner_vanished_is_not():
    """Unless its time had come by when the next one began."""
    window = Window(0)
    for offset in range(3):
        window.see(offset)
    window.note(0, 1, suspect=False, due_ms=5_000)
    window.note(1, 1, suspect=False, due_ms=7_000)
    again = restored(window.commit(clean=False, ahead=0), now=Moment(6_000, 6_000))
    assert [again.see(offset) for offset in range(3)] == [
        Handing(1, suspect=True), Handing(1, suspect=False, due_ms=7_000), Handing(0, suspect=True),
    ]  # fmt: skip


WALL = 1_772_600_000_000
HOURS = 2 * 3600 * 1000


@pytest.mark.parametrize(
    ("later", "left"),
    [(0, 9_000), (4_000, 5_000), (-HOURS, 9_000), (HOURS, 0)],
    ids=["at once", "4 s later", "a clock 2 h behind", "a clock 2 h ahead"],
)
def test_a_retry_that_is_taken_over_waits_no_longer_than_it_had_to_wait_when_that_was_committed(later, left):
    window = Window(0)
    window.see(0)
    window.note(0, 1, suspect=False, due_ms=60_000)
    commit = window.commit(clean=True, now=Moment(WALL, 51_000))
    again = restored(commit, now=Moment(WALL + later, 7))
    assert again.see(0) == Handing(1, due_ms=7 + left if left else 0)


def test_an_owners_own_clock_may_jump_before_it_commits():
    window = Window(0)
    window.see(0)
    window.commit(clean=True, now=Moment(WALL, 50_000))
    window.note(0, 1, suspect=False, due_ms=60_000)
    commit = window.commit(clean=True, now=Moment(WALL - HOURS, 51_000))
    assert restored(commit, now=Moment(WALL - HOURS, 0)).see(0) == Handing(1, due_ms=9_000)


def test_a_commit_of_an_earlier_version_does_not_say_when_it_was_made():
    numbers = b"\x01\x00\x01\xe8\x07\x01\x00\x06\x00\x00"  # clean; one that failed once waits until 1000
    window = Window.restored(0, "nc1:" + b64encode(numbers).decode(), now=Moment(400, 20))
    assert window.see(0) == Handing(1, due_ms=620)


def test_what_was_given_back_is_not():
    window = Window(100)
    for offset in range(100, 110):
        window.see(offset)
    window.settle(104)
    again = restored(window.commit(clean=True))
    assert [again.see(offset) for offset in range(100, 106)] == [*[Handing()] * 4, None, Handing()]


def test_a_clean_commit_keeps_the_suspects_that_it_was_told_of():
    window = Window(100)
    for offset in range(100, 103):
        window.see(offset)
    window.note(101, 0, suspect=True)
    again = restored(window.commit(clean=True))
    assert [again.see(offset) for offset in range(100, 103)] == [Handing(), Handing(0, suspect=True), Handing()]


def vanished(*, had: int) -> Window:
    """An owner that had so many in its hands has ended without a word."""
    window = Window(0)
    return restored(window.commit(clean=False, ahead=had))


def test_suspects_that_the_next_owner_has_not_seen_stay_suspects():
    second = vanished(had=10)
    for offset in range(4):
        second.see(offset)
    second.settle(0)
    third = restored(second.commit(clean=True))
    assert [offset for offset in range(20) if (found := third.see(offset)) is not None and found.suspect] == [
        *range(1, 10)
    ]


def test_also_if_it_vanishes_itself():
    third = restored(vanished(had=10).commit(clean=False, ahead=2))
    assert [offset for offset in range(20) if third.see(offset).suspect] == list(range(10))


def test_suspects_that_it_has_seen_stay_suspects_until_they_are_noted_as_others():
    second = vanished(had=4)
    for offset in range(4):
        assert second.see(offset) == Handing(0, suspect=True)
    second.settle(0)
    second.note(1, 1, suspect=False)
    third = restored(second.commit(clean=True))
    assert [third.see(offset) for offset in range(1, 5)] == [
        Handing(1), Handing(0, suspect=True), Handing(0, suspect=True), Handing(),
    ]  # fmt: skip


def test_more_is_handed_out_only_once_the_broker_knows():
    window = Window(0)
    assert window.reserved == 0
    window.committed(window.commit(clean=False, ahead=AHEAD))
    assert window.reserved == AHEAD
    for offset in range(10):
        window.see(offset)
    commit = window.commit(clean=False, ahead=AHEAD)
    assert window.reserved == AHEAD
    window.committed(commit)
    assert window.reserved == 10 + AHEAD


def test_less_is_handed_out_at_once():
    """The broker may have the commit before its answer is here."""
    window = Window(0)
    window.committed(window.commit(clean=False, ahead=AHEAD))
    window.commit(clean=False, ahead=10)
    assert window.reserved == 10
    window.not_committed()
    assert window.reserved == 10


def test_there_is_something_to_commit_after_a_change_and_after_a_failure():
    window = Window(0)
    assert not window.changed
    window.see(0)
    window.see(1)
    assert not window.changed
    window.settle(1)
    assert window.changed
    commit = window.commit(clean=False)
    assert not window.changed
    window.not_committed()
    assert window.changed
    window.committed(window.commit(clean=False))
    window.settle(1)
    assert not window.changed, "it was settled before"
    window.note(0, 1, suspect=False)
    assert window.changed
    assert commit.offset == 0


def test_settling_twice_or_behind_the_position_is_nothing():
    window = Window(5)
    window.see(5)
    window.settle(5)
    window.settle(5)
    window.settle(3)
    assert window.position == 6
    assert window.see(4) is None


# Gaps


def test_offsets_that_hold_nothing_are_passed():
    window = Window(10)
    window.see(13)
    assert window.position == 13
    assert all(window.is_settled(offset) for offset in range(13))
    window.settle(13)
    window.see(17)
    assert (window.position, window.next) == (17, 18)
    assert window.unsettled(18) == 1
    assert window.changed


def test_also_between_what_an_earlier_owner_has_settled():
    first = Window(0)
    for offset in range(12):
        first.see(offset)
    for offset in (2, 3, 6, 9):
        first.settle(offset)
    again = restored(first.commit(clean=True))
    again.see(0)
    assert again.see(10) == Handing()
    assert again.unsettled(11) == 2
    assert all(again.is_settled(offset) for offset in range(1, 10))
    again.settle(0)
    assert again.position == 10


@pytest.mark.parametrize("how", [{"failed": 1, "suspect": False}, {"failed": 0, "suspect": True}])
def test_also_over_a_failed_one_that_is_gone(how):
    """As compaction takes it away."""
    first = Window(0)
    first.see(0)
    first.note(0, **how)
    again = restored(first.commit(clean=True))
    again.see(3)
    assert again.position == 3
    assert restored(again.commit(clean=True)).see(3) == Handing()


def test_reading_something_again_changes_nothing():
    window = Window(0)
    for offset in (0, 1, 2):
        window.see(offset)
    window.settle(1)
    assert [window.see(offset) for offset in (0, 1, 2)] == [Handing(), None, Handing()]
    assert window.next == 3


def test_unsettled_ones_are_counted_up_to_anywhere():
    window = Window(10)
    for offset in range(10, 20):
        window.see(offset)
    for offset in (12, 13, 17):
        window.settle(offset)
    assert [window.unsettled(end) for end in (0, 10, 12, 13, 14, 18, 20, 25)] == [0, 0, 2, 2, 2, 5, 7, 12]


# Room


def gaps(window: Window, most: int) -> None:
    """Every second one is settled."""
    for offset in range(window.next, window.next + 2 * most, 2):
        window.see(offset)
        window.see(offset + 1)
        if window.full:
            return
        window.settle(offset + 1)


def test_it_says_when_metadata_would_not_fit():
    window = Window(0)
    assert not window.full
    gaps(window, 4000)
    assert window.full
    assert 2000 < len(window.commit(clean=False).metadata) < METADATA_BYTES
    for offset in range(0, window.next, 2):
        window.settle(offset)
    assert not window.full


def test_times_of_retries_go_first_and_attempts_last():
    window = Window(0, limit=150)
    for offset in range(80):
        window.see(offset)
    for offset in range(1, 80, 2):
        if offset % 4 == 1:
            window.settle(offset)
        else:
            window.note(offset, 1, suspect=False, due_ms=1_772_600_000_000 + 10_000 * offset)
    commit = window.commit(clean=True)
    assert len(commit.metadata) <= 150
    found = {offset: restored(commit, now=Moment()).see(offset) for offset in range(80)}
    failed = {offset for offset, each in found.items() if each is not None and each.failed}
    assert failed == set(range(3, 80, 4)), "all attempts"
    assert not any(each.due_ms for each in found.values() if each is not None)


@pytest.mark.parametrize("limit", [40, 150])
def test_a_commit_that_leaves_something_out_is_counted_once(limit):
    window = Window(0, limit=limit)
    for offset in range(40):
        window.see(offset)
        window.note(offset, 1, suspect=False, due_ms=1_772_600_000_000 + 10_000 * offset)
    window.commit(clean=True)
    assert window.truncated == 1


def test_of_what_is_settled_the_nearest_is_kept():
    window = Window(0, limit=40)
    for offset in range(100):
        window.see(offset)
        if offset % 2:
            window.settle(offset)
    again = restored(window.commit(clean=True))
    known = [offset for offset in range(100) if again.is_settled(offset)]
    assert known
    assert known == list(range(1, 2 * len(known), 2))


# Metadata


@pytest.mark.parametrize("metadata", ["hello", "nc1:", "nc1:!!", "nc1:AAAA/w==", "nc1:é", "nc2:AAAAAAAA", " nc1:AAAA"])
def test_metadata_of_somebody_else_are_refused(metadata):
    with pytest.raises(BadMetadata):
        Window.restored(7, metadata)


@given(st.binary(max_size=60))
def test_damaged_ones_are_refused_or_read_but_never_another_error(data):
    try:
        window = Window.restored(7, "nc1:" + b64encode(data).decode())
    except BadMetadata:
        return
    assert window.position == 7


@given(st.integers(0, 40))
def test_ones_that_were_cut_off_are_refused(size):
    window = Window(0, epoch=1 << 40)
    for offset in range(20):
        window.see(offset)
        if offset % 3:
            window.settle(offset)
    window.note(3, 2, suspect=True, due_ms=1 << 40)
    metadata = window.commit(clean=True).metadata
    if size < len(metadata):
        with pytest.raises(BadMetadata):
            Window.restored(0, metadata[:size] or "nc1:")


def test_a_commit_without_metadata_is_somebody_elses_and_fine():
    assert Window.restored(7, None).see(7) == Handing()
    assert Window.restored(7, "").position == 7


@given(st.integers(0, 1 << 62), st.integers(0, 1 << 62), st.integers(0, 1 << 30), st.integers(0, 1 << 62))
def test_huge_numbers_come_back(first, epoch, failed, due_ms):
    window = Window(first, epoch=epoch)
    window.see(first)
    window.note(first, failed, suspect=True, due_ms=due_ms)
    again = restored(window.commit(clean=True), now=Moment())
    assert (again.epoch, again.position) == (epoch, first)
    assert again.see(first) == Handing(failed, suspect=True, due_ms=due_ms)


# Going on where an earlier owner stopped


def continued(offset: int, metadata: str | None, *, epoch: int = 7) -> tuple[Window, list[BadMetadata]]:
    told: list[BadMetadata] = []
    return Window.continued(Window(3, epoch=epoch), offset, metadata, LATE, told.append), told


def test_it_goes_on_if_that_was_at_the_same_position_of_the_group_s():
    metadata = Window(50, epoch=7).commit(clean=True).metadata
    window, told = continued(50, metadata)
    assert (window.position, window.epoch, told) == (50, 7, [])
    window, _ = continued(50, metadata, epoch=8)
    assert (window.position, window.epoch) == (3, 8)


def test_other_tools_commits_count():
    window, _ = continued(50, "")
    assert (window.position, window.epoch) == (50, 7)


def test_nothing_committed_is_a_fresh_start():
    assert continued(-1001, None)[0].position == 3


def test_of_damaged_metadata_the_offset_counts():
    """Beginning anew would repeat all that the group ever handled."""
    window, told = continued(50, "nc1:???")
    assert (window.position, window.epoch, len(told)) == (50, 7, 1)
