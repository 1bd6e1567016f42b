"""What a commit's metadata remember, against a plain set of offsets."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralcore_transports.kafka.runs import Runs
from neuralcore_transports.kafka.window import RESERVED, BadMetadata, Handing, Window


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


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("see"), st.integers(0, 3)),
        st.tuples(st.just("settle"), st.integers(0, 30)),
        st.tuples(st.just("fail"), st.integers(0, 30)),
        st.tuples(st.just("commit"), st.booleans()),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(STEPS, st.integers(0, 1 << 40))
def test_a_restored_window_knows_what_was_committed(steps, first):
    window, last = Window(first), first
    held, settled, failed = [], set(), {}
    kept = (window.commit(clean=True), set(), {}, first)
    for verb, what in steps:
        if verb == "see":
            last += what  # so many offsets hold nothing
            settled.update(range(last - what, last))
            assert window.see(last) == Handing()
            held.append(last)
            last += 1
        elif verb == "commit":
            commit = window.commit(clean=what)
            window.committed(commit)
            kept = (commit, set(settled), dict(failed), last if what else last + RESERVED)
        elif held:
            offset = held[what % len(held)]
            if verb == "settle":
                held.remove(offset)
                settled.add(offset)
                failed.pop(offset, None)
                window.settle(offset)
            else:
                failed[offset] = failed.get(offset, 0) + 1
                window.note(offset, failed[offset], suspect=False)
    open_ones = [n for n in range(first, last) if n not in settled]
    assert window.position == (open_ones[0] if open_ones else last)

    commit, was_settled, was_failed, reserved = kept
    again = Window.restored(commit.offset, commit.metadata)
    clean = reserved < first + RESERVED + (last - first) and commit.reserved == again._suspects == commit.offset
    for offset in range(commit.offset, last):
        found = again.see(offset)
        if offset in was_settled:
            assert found is None
        else:
            assert found is not None
            assert found.failed == was_failed.get(offset, 0)
            if not clean:
                assert found.suspect == (offset < again._suspects)


def test_what_an_owner_that_vanished_may_have_had_is_suspect():
    window = Window(100)
    window.committed(window.commit(clean=False))
    for offset in range(100, 110):
        window.see(offset)
    again = Window.restored(100, window.commit(clean=False).metadata)
    assert all(again.see(offset).suspect for offset in range(100, 110))


def test_what_was_given_back_is_not():
    window = Window(100)
    for offset in range(100, 110):
        window.see(offset)
    window.settle(104)
    commit = window.commit(clean=True)
    again = Window.restored(commit.offset, commit.metadata)
    assert [again.see(offset) for offset in range(100, 106)] == [*[Handing()] * 4, None, Handing()]


def test_more_is_handed_out_only_once_the_broker_knows():
    window = Window(0)
    assert window.reserved == 0
    window.committed(window.commit(clean=False))
    assert window.reserved == RESERVED
    for offset in range(10):
        window.see(offset)
    commit = window.commit(clean=False)
    assert window.reserved == RESERVED
    window.committed(commit)
    assert window.reserved == 10 + RESERVED


def test_it_says_when_metadata_would_not_fit():
    window = Window(0)
    for offset in range(0, 4000, 2):
        window.see(offset)
        window.see(offset + 1)
        if window.full:
            break
        window.settle(offset + 1)
    assert window.full
    assert 2000 < len(window.commit(clean=False).metadata) < 4096


@pytest.mark.parametrize("metadata", ["hello", "nc1:", "nc1:!!", "nc1:AAAA/w=="])
def test_metadata_of_somebody_else_are_refused(metadata):
    with pytest.raises(BadMetadata):
        Window.restored(7, metadata)


def test_a_commit_without_metadata_is_somebody_elses_and_fine():
    assert Window.restored(7, None).see(7) == Handing()
    assert Window.restored(7, "").position == 7
