"""Where the durable benchmarks make their files, and that they look at what comes back."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from benchmarks import _durable
from benchmarks._durable import Place, checked, payloads, shares
from benchmarks._durable_peers import Raw
from benchmarks._sink import CheckFailed, Recorder


def read(*arguments: str) -> Place:
    place, parser = Place(), argparse.ArgumentParser()
    place.declare(parser)
    place.read(parser.parse_args(arguments))
    return place


def test_options_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_durable, "file_system", lambda path: "ext4")
    place = read("--directory", str(tmp_path), "--stored", "7", "--url", "memory://{name}")
    assert (place.directory, place.stored) == (tmp_path, 7)
    assert place.url_of(tmp_path / "bus.db") == f"memory://{tmp_path.name}"


def test_what_syncs_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_durable, "file_system", lambda path: "tmpfs")
    with pytest.raises(SystemExit, match="is a tmpfs"):
        read("--directory", str(tmp_path))


def test_the_deepest_mount_says_what_a_path_lies_on() -> None:
    if not Path("/proc/mounts").exists():
        pytest.skip("needs Linux")
    assert _durable.file_system(Path("/proc/self")) == "proc"


def test_a_changed_message_is_refused() -> None:
    handle = checked(recorder := Recorder(), recorder.plain())
    handle(payloads(0, 1)[0])
    with pytest.raises(CheckFailed, match="changed"):
        handle({"i": 1, "text": "other"})
    assert recorder.seen[""] == [0]


def test_shares_are_equal_and_leave_the_rest_out() -> None:
    assert [[payload["i"] for payload in share] for share in shares(7, 3)] == [[0, 1], [2, 3], [4, 5]]


def test_the_ceiling_stores_what_it_is_given(tmp_path: Path) -> None:
    raw = Raw(tmp_path)
    raw.put_many(payloads(0, 3))
    assert raw.all() == payloads(0, 3)
    raw.close()
