"""The power cut, call by call."""

from __future__ import annotations

import errno
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.faults import shims
from tests.faults.powercut import CannotTell, Mode, PowerCut

pytestmark = pytest.mark.skipif(not shims.available(), reason=str(shims.NoCompiler()))

PRELUDE = """
import ctypes, fcntl, mmap, os, pathlib, shutil
def put(name, data, sync=False, flags=os.O_CREAT | os.O_WRONLY, at=None):
    fd = os.open(name, flags, 0o600)
    os.write(fd, data) if at is None else os.pwrite(fd, data, at)
    if sync:
        os.fsync(fd)
    return fd
def sync_names(folder="."):
    fd = os.open(folder, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
"""


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.power = PowerCut(folder / "disk")
        self._images = 0

    def do(self, script: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
            env=self.power.environment(),
            cwd=self.power.directory,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def after(self, mode: Mode = "none", seed: int = 0) -> dict[str, bytes]:
        self._images += 1
        target = self.folder / f"after-{self._images}"
        self.power.image(target, mode, seed)
        return {str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*") if p.is_file()}


@pytest.fixture
def bench(tmp_path: Path):
    bench = Bench(tmp_path)
    yield bench
    assert bench.power.missed() == []


def test_only_what_was_synced_is_certain(bench: Bench) -> None:
    bench.do("fd = put('a', b'kept', sync=True); os.write(fd, b' and lost')")
    assert bench.after("none") == {"a": b"kept"}
    assert bench.after("all") == {"a": b"kept and lost"}


def test_a_file_that_was_never_synced_is_not_there(bench: Bench) -> None:
    bench.do("put('a', b'lost')")
    assert bench.after() == {}


def test_syncing_the_folder_keeps_the_name_and_not_the_contents(bench: Bench) -> None:
    bench.do("put('a', b'lost'); sync_names()")
    assert bench.after() == {"a": b""}


def test_posix_wants_the_folder_synced_for_a_new_name(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.power.strict = True
    bench.do("put('a', b'kept', sync=True)")
    assert bench.after() == {}
    bench.do("sync_names()")
    assert bench.after() == {"a": b"kept"}


def test_one_process_syncs_what_another_wrote(bench: Bench) -> None:
    bench.do("put('a', b'aaaa', sync=True); put('a', b'b', at=1)")
    bench.do("put('a', b'c', at=2, sync=True); put('a', b'd', at=3)")
    assert bench.after() == {"a": b"abca"}


def test_what_the_directory_held_before_is_durable(tmp_path: Path) -> None:
    (tmp_path / "disk/sub").mkdir(parents=True)
    (tmp_path / "disk/sub/old").write_bytes(b"old")
    bench = Bench(tmp_path)
    bench.do("put('sub/old', b'new')")
    assert bench.after() == {"sub/old": b"old"}
    assert bench.after("all") == {"sub/old": b"new"}


def test_a_rename_waits_for_its_folder(bench: Bench) -> None:
    bench.do("put('f', b'old', sync=True); put('t', b'new', sync=True); os.rename('t', 'f')")
    assert bench.after() == {"f": b"old", "t": b"new"}
    assert bench.after("all") == {"f": b"new"}
    assert {tuple(sorted(bench.after("random", seed))) for seed in range(20)} == {("f", "t"), ("f",)}
    bench.do("sync_names()")
    assert bench.after() == {"f": b"new"}


def test_an_unlink_waits_for_its_folder(bench: Bench) -> None:
    bench.do("put('a', b'old', sync=True); os.unlink('a'); put('a', b'new')")
    assert bench.after() == {"a": b"old"}
    bench.do("sync_names()")
    assert bench.after() == {"a": b""}


def test_a_late_unlink_takes_no_file_that_came_after_it(bench: Bench) -> None:
    bench.do("put('a', b'old', sync=True); os.unlink('a'); put('a', b'new', sync=True)")
    assert bench.after() == {"a": b"new"}
    assert all(bench.after("random", seed) == {"a": b"new"} for seed in range(10))
    bench.do("sync_names()")
    assert bench.after() == {"a": b"new"}


def test_inode_numbers_that_come_again_are_other_files(bench: Bench) -> None:
    bench.do("""
        for n in range(20):
            os.close(put('a', b'%d' % n, sync=n < 19))
            if n < 19: os.unlink('a')
    """)
    assert bench.after("all") == {"a": b"19"}
    assert bench.after("none") == {"a": b"18"}


@pytest.mark.parametrize(
    "script",
    [
        "fd = put('a', b'x'); os.write(os.dup(fd), b'yz')",
        "put('a', b'x'); put('a', b'yz', flags=os.O_WRONLY | os.O_APPEND)",
        "fd = put('a', b''); os.writev(fd, [b'x', b'yz'])",
        "fd = put('a', b'x'); os.pwritev(fd, [b'y', b'z'], 1)",
        "put('a', b'xyz and more'); os.truncate('a', 3)",
        "put('a', b'other'); put('a', b'xyz', flags=os.O_WRONLY | os.O_TRUNC)",
        "pathlib.Path('b').write_bytes(b'xyz'); os.replace('b', 'a')",
        "pathlib.Path('a').write_bytes(b'xyz')",
        "pathlib.Path('b').write_bytes(b'xyz'); shutil.copyfile('b', 'a'); os.unlink('b')",
        "put('b', b'xyz'); os.link('b', 'a'); os.unlink('b')",
        "fd = put('a', b'x'); pid = os.fork() or os._exit(os.write(fd, b'yz') - 2); os.waitpid(pid, 0)",
        "put(os.path.realpath('.') + '/a', b'xyz')",
        "fd = os.open('.', os.O_RDONLY); os.write(os.open('a', os.O_CREAT | os.O_WRONLY, dir_fd=fd), b'xyz')",
    ],
)
def test_every_way_to_write_is_seen(bench: Bench, script: str) -> None:
    bench.do(script)
    assert bench.after("all") == {"a": b"xyz"}
    assert bench.after("none") == {}
    bench.do("os.sync()")
    assert bench.after("none") == {"a": b"xyz"}


def test_allocated_room_reads_as_zeros(bench: Bench) -> None:
    bench.do("fd = put('a', b'x'); os.posix_fallocate(fd, 0, 3); os.fdatasync(fd)")
    assert bench.after() == {"a": b"x\0\0"}


def test_synchronous_descriptors_sync_themselves(bench: Bench) -> None:
    bench.do("put('a', b'x', flags=os.O_CREAT | os.O_WRONLY | os.O_DSYNC)")
    assert bench.after() == {"a": b"x"}


def test_writing_through_a_mapping_is_confessed(bench: Bench) -> None:
    bench.do("fd = os.open('a', os.O_CREAT | os.O_RDWR); os.ftruncate(fd, 10); mmap.mmap(fd, 10)[0] = 1")
    with pytest.raises(CannotTell, match="mapped for writing"):
        bench.after()
    bench.power.missed = list  # rightly it would name the file


def test_writes_behind_its_back_are_found(bench: Bench) -> None:
    bench.do("put('a', b'x', sync=True)")
    (bench.power.directory / "a").write_bytes(b"y")
    assert bench.power.missed() == ["a"]
    (bench.power.directory / "a").write_bytes(b"x")


def test_locks_survive_what_the_shim_does(bench: Bench) -> None:
    """Had it opened and closed the file, the process would have lost its POSIX lock."""
    said = bench.do("""
        fd = put('a', b'x')
        fcntl.lockf(fd, fcntl.LOCK_EX)
        os.write(fd, b'y'); os.fsync(fd); os.ftruncate(fd, 1); sync_names(); os.link('a', 'b'); os.rename('b', 'c')
        if not (pid := os.fork()):
            try: fcntl.lockf(os.open('a', os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError: os._exit(7)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """)
    assert said == "7\n"


def test_a_sync_that_failed_has_lost_what_it_should_have_kept(bench: Bench) -> None:
    bench.do("put('a', b'kept', sync=True)")
    bench.power.fail_syncs(errno.EIO)
    assert "[Errno 5]" in bench.do("""
        try: put('a', b'LO', sync=True)
        except OSError as error: print(error)
    """)
    bench.power.fail_syncs(0)
    bench.do("put('a', b'later', sync=True, at=4)")
    assert bench.after("none") == {"a": b"keptlater"}
    assert bench.after("all") == {"a": b"LOptlater"}


def test_a_full_disk_can_be_had_without_one(bench: Bench) -> None:
    bench.power.fail_writes(errno.ENOSPC)
    assert "No space left" in bench.do("""
        try: put('a', b'x')
        except OSError as error: print(error)
    """)
    bench.power.fail_writes(0)


def test_sectors_are_kept_or_lost_and_torn_at_random(bench: Bench) -> None:
    bench.do("fd = put('a', b'-' * 40960, sync=True); put('a', b'+' * 40960)")
    seen = {bench.after("random", seed)["a"] for seed in range(60)}
    halves = {content for content in seen if 0 < content.count(b"+") < 40960}
    assert b"-" * 40960 in seen
    assert b"+" * 40960 in seen
    assert len(halves) > 20
    assert any(content.count(b"+") % 512 for content in halves), "none was torn"
    assert any(content.count(b"+") % 512 == 0 for content in halves), "all were torn"
