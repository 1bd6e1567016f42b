"""The model of the disk, where the order of events is finer than a script can bring about."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.platter import CannotTell, Kind, Mode, Platter, Record


def disk(*events: tuple[Kind, int, int, bytes], strict: bool = False) -> Platter:
    """Of (kind, inode, offset, data); an event's position is its index."""
    platter = Platter({}, strict=strict)
    for position, (kind, inode, offset, data) in enumerate(events):
        platter.feed(Record(position, kind, inode, offset, 1, data))
    return platter


def kept(platter: Platter, folder: Path, mode: Mode = "none") -> dict[str, bytes]:
    platter.image(folder / mode, mode, random.Random(0))
    return {p.relative_to(folder / mode).as_posix(): p.read_bytes() for p in (folder / mode).rglob("*") if p.is_file()}


def test_a_sync_keeps_what_was_written_before_it_began(tmp_path: Path) -> None:
    platter = disk(
        (Kind.CREATE, 1, 0, b"a"),
        (Kind.WRITE, 1, 0, b"xx"),
        (Kind.WRITE, 1, 1, b"y"),  # by another process, while the sync that began at 2 was under way
        (Kind.SYNC, 1, 2, b""),
    )
    assert kept(platter, tmp_path) == {"a": b"xx"}
    assert platter.unsynced() == {"a": 1}


def test_a_write_that_failed_or_was_short_counts_as_far_as_it_went(tmp_path: Path) -> None:
    platter = disk(
        (Kind.CREATE, 1, 0, b"a"),
        (Kind.WRITE, 1, 0, b"failed"),
        (Kind.VOID, 0, 1, b""),
        (Kind.WRITE, 1, 0, b"short"),
        (Kind.SHORT, 2, 3, b""),
    )
    assert kept(platter, tmp_path, "all") == {"a": b"sh"}


@pytest.mark.parametrize("real", [b"", b"ne", b"new"])
def test_a_write_whose_process_was_killed_in_it_may_have_happened_or_not(real: bytes) -> None:
    events = [(Kind.CREATE, 1, 0, b"a"), (Kind.WRITE, 1, 0, b"new")]
    assert disk(*events, (Kind.DOUBT, 0, 1, b"")).agrees("a", bytearray(real))
    assert disk(*events).agrees("a", bytearray(real)) is (real == b"new")


def test_a_file_whose_creator_was_killed_before_it_could_tell_is_known_when_opened(tmp_path: Path) -> None:
    assert kept(disk((Kind.OPEN, 1, 0, b"a"), (Kind.WRITE, 1, 0, b"x")), tmp_path, "all") == {"a": b"x"}


def test_a_file_that_nobody_saw_opened_is_no_guess(tmp_path: Path) -> None:
    with pytest.raises(CannotTell, match="inode 1"):
        kept(disk((Kind.WRITE, 1, 0, b"x")), tmp_path)


def test_a_name_is_kept_by_the_folder_that_holds_it(tmp_path: Path) -> None:
    events = [(Kind.CREATE, 1, 0, b"sub/a"), (Kind.CREATE, 2, 0, b"b"), (Kind.SYNC_NAMES, 0, 2, b"sub")]
    assert kept(disk(*events), tmp_path) == {"sub/a": b""}
