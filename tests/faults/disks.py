"""Disks that are full, that may not be written to, that flip bits and forget the ends of files.

>>> with SmallDisk(tmp_path / "small") as disk:     # needs root: see SmallDisk.why_not()
...     disk.fill(leave=8192); ...; disk.free()
>>> with read_only(tmp_path / "bus.db"): ...
>>> flip(tmp_path / "bus.db", "index leaf cell", seed=7)
>>> for cut in truncations(tmp_path / "bus.db-wal"): cut.apply(copy_of_the_wal)
"""

from __future__ import annotations

import errno
import functools
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.faults.sqlite_format import WAL_HEADER, WAL_REGIONS, Frame, database_regions, frames, wal_regions

__all__ = ["Flip", "SmallDisk", "Truncation", "flip", "read_only", "truncations"]


def _run(*command: str) -> str:
    """What it complained of, or nothing."""
    if shutil.which(command[0]) is None:
        return f"there is no {command[0]} on the PATH"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stderr.strip() or f"{command[0]} failed") if done.returncode else ""


class SmallDisk:
    """A tmpfs of its own, by default of 2 MB."""

    def __init__(self, path: Path, *, size: int = 2 << 20) -> None:
        self.path = path
        self.size = size

    @staticmethod
    @functools.cache
    def why_not() -> str:
        """Why nothing can be mounted here; empty when it can. For ``pytest.mark.skipif``."""
        with tempfile.TemporaryDirectory() as folder:
            complaint = _run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder) or _run("umount", folder)
            return f"{complaint}: run as root, or with `unshare --map-root-user --mount` before it" if complaint else ""

    @property
    def free_bytes(self) -> int:
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self, *, leave: int = 0) -> None:
        """All but so many bytes, in whole pages."""
        fd = os.open(self._ballast, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        try:
            while (left := (self.free_bytes - leave) // 4096 * 4096) > 0:
                os.write(fd, bytes(min(left, 1 << 16)))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        finally:
            os.close(fd)

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return self.path / ".ballast"

    def __enter__(self) -> SmallDisk:
        self.path.mkdir(parents=True, exist_ok=True)
        complaint = _run("mount", "-t", "tmpfs", "-o", f"size={self.size}", "tmpfs", str(self.path))
        if complaint:
            raise PermissionError(complaint)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if _run("umount", str(self.path)):
            _run("umount", "--lazy", str(self.path))  # somebody still has a file open


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """A file or a directory tree that nobody can open for writing; what is open already stays writable.

    Modes do not bind root, so root gets a mount: EROFS instead of EACCES. A mounted file cannot be renamed (EBUSY).
    """
    if os.getuid():
        mode = path.stat().st_mode
        path.chmod(mode & ~0o222)
        try:
            yield
        finally:
            path.chmod(mode)
        return
    complaint = _run("mount", "--bind", str(path), str(path))
    complaint = complaint or _run("mount", "-o", "remount,bind,ro", str(path))
    try:
        if complaint:
            raise PermissionError(complaint)
        yield
    finally:
        if _run("umount", str(path)):
            _run("umount", "--lazy", str(path))


@dataclass(frozen=True, slots=True)
class Flip:
    """One bit of a file. ``apply`` again and it is as it was."""

    path: Path
    region: str
    offset: int
    bit: int

    def apply(self) -> None:
        with self.path.open("r+b") as file:
            file.seek(self.offset)
            byte = file.read(1)[0]
            file.seek(self.offset)
            file.write(bytes([byte ^ 1 << self.bit]))


def flip(path: Path, region: str, seed: int) -> Flip:
    """Flips a bit, chosen by the seed, in a region of DATABASE_REGIONS or, of a WAL, WAL_REGIONS.

    Spans are equally likely, not their bytes. Do it while nobody has the file open: closing it here drops this
    process's POSIX locks on it. Raises LookupError when the file has no such region.
    """
    spans = (wal_regions if region in WAL_REGIONS else database_regions)(path).get(region, [])
    spans = [span for span in spans if span.end > span.start]
    if not spans:
        raise LookupError(f"{path.name} has no {region}")
    rng = random.Random(f"{region}/{seed}")
    span = rng.choice(spans)
    found = Flip(path, region, rng.randrange(span.start, span.end), rng.randrange(8))
    found.apply()
    return found


@dataclass(frozen=True, slots=True)
class Truncation:
    label: str
    size: int
    commits: int
    """How many whole transactions are left in the WAL."""

    def apply(self, path: Path) -> None:
        os.truncate(path, self.size)


def truncations(wal: Path) -> list[Truncation]:
    """One of each kind of place at which a WAL can end, in the midst of it and at its last transaction."""
    found = frames(wal)
    cuts = [("empty", 0), ("inside the header", WAL_HEADER // 2), ("the header's end", WAL_HEADER)]
    for where, frame in _samples(found).items():
        cuts += [
            (f"inside a frame header, {where}", frame.start + 11),
            (f"between header and body, {where}", frame.body),
            (f"inside a body, {where}", (frame.body + frame.end) // 2),
            (f"one byte before a frame's end, {where}", frame.end - 1),
            (f"a {'commit ' if frame.commits else ''}frame's end, {where}", frame.end),
        ]
    ends = [frame.end for frame in found if frame.commits]
    sizes = {size: label for label, size in reversed(cuts)}
    return [Truncation(label, size, sum(end <= size for end in ends)) for size, label in sorted(sizes.items())]


def _samples(found: list[Frame]) -> dict[str, Frame]:
    commits = [frame for frame in found if frame.commits]
    others = [frame for frame in found if not frame.commits]
    samples = {}
    if found:
        samples["first frame"] = found[0]
    if commits:
        samples |= {"commit frame in the midst": commits[len(commits) // 2], "last commit frame": commits[-1]}
    if others:
        samples |= {"between two frames of a transaction": others[len(others) // 2]}
    return samples
