"""A power cut without pulling a plug: ``powercut.c`` writes down what processes do to a directory, ``platter.py`` says
what a disk would have kept of it.

>>> power = PowerCut(tmp_path / "disk")
>>> worker = Worker.python(SCRIPT, env=power.environment())     # any number of processes
>>> worker.kill()
>>> power.image(tmp_path / "after", "random", seed=7)           # now open tmp_path / "after" as after a reboot

One run gives as many cuts as wanted, at any moment of it. Workers append what was acknowledged to them to the file
``power.witness`` (one write a line, after the acknowledgement), which puts it into the same order of events:

>>> for cut in power.cuts(50, seed=7):
...     cut.image(tmp_path / f"after-{cut.position}", "none")
...     acknowledged = cut.witnessed
"""

from __future__ import annotations

import mmap
import os
import random
import struct
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.faults.platter import CannotTell, Mode, Platter, Record, records
from tests.faults.shims import NoCompiler, preloaded

__all__ = ["CannotTell", "Cut", "Mode", "NoCompiler", "PowerCut"]

STATE_SIZE = 4096
END = struct.Struct("<QQ")  # as in powercut.c: end, doing
SYNC_ERROR, WRITE_ERROR, LYING = 16, 20, 24


@dataclass(frozen=True)
class Cut:
    """A moment at which the power was cut."""

    position: int
    platter: Platter

    @property
    def witnessed(self) -> list[str]:
        return [line.decode() for line in self.platter.witnessed]

    def image(self, target: Path, mode: Mode, seed: int = 0) -> None:
        """Makes ``target``, which must not exist yet."""
        self.platter.image(target, mode, random.Random(f"{seed}/{self.position}"))


class PowerCut:
    """Watches a directory, from what it holds now, which counts as durable.

    ``strict``: a new file's name needs its folder synced, as POSIX has it and ext4 has not.
    """

    def __init__(self, directory: Path, *, state: Path | None = None, strict: bool = False) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory.resolve()
        self.strict = strict
        self.state = Path(tempfile.mkdtemp(prefix="powercut-", dir=state or self.directory.parent)).resolve()
        self.witness = self.state / "witness"
        for path, size in ((self.state / "state", STATE_SIZE), (self.state / "log", 0), (self.witness, 0)):
            path.write_bytes(bytes(size))
        with (self.state / "state").open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), STATE_SIZE)
        self._base = {str(p.relative_to(self.directory)): (p.stat().st_ino, p.read_bytes()) for p in self._present()}

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """For subprocess: ``base`` (by default this process's own) with the shim in it."""
        places = {"NC_POWERCUT": str(self.directory), "NC_POWERCUT_STATE": str(self.state)}
        return preloaded("powercut", base, **places, NC_WITNESS=str(self.witness))

    def image(self, target: Path, mode: Mode, seed: int = 0) -> Cut:
        """The disk after a cut now. Processes may live on, as if nothing had happened to them."""
        cut = self._at([self._end])[0]
        cut.image(target, mode, seed)
        return cut

    def cuts(self, count: int, seed: int) -> Iterator[Cut]:
        """So many moments of the run so far, in order, the last of them now. Use each before asking for the next."""
        log, end = self._log(), self._end
        starts = [record.position for record in records(log, end)]
        chosen = random.Random(seed).sample(starts, min(count - 1, len(starts)))
        yield from self._replay(log, sorted({*chosen, end}))

    def missed(self) -> list[str]:
        """Files whose contents are not what the log says: writes that escaped the shim. Ask when no process runs.

        What a process killed in mid-write had begun is not held against it.
        """
        platter = self._at([self._end])[0].platter
        platter.doubt(END.unpack_from(self._shared)[1] - 1)
        seen = {str(p.relative_to(self.directory)): bytearray(p.read_bytes()) for p in self._present()}
        same = {name for name in set(seen) & set(platter.names) if platter.agrees(name, seen[name])}
        return sorted((set(seen) | set(platter.names)) - same)

    def fail_syncs(self, error: int) -> None:
        """From now on fsync and fdatasync fail with this errno (0: no more), and what they should have kept is lost."""
        self._shared[SYNC_ERROR : SYNC_ERROR + 4] = struct.pack("<i", error)

    def fail_writes(self, error: int) -> None:
        """From now on writes fail with this errno, ENOSPC for instance (0: no more)."""
        self._shared[WRITE_ERROR : WRITE_ERROR + 4] = struct.pack("<i", error)

    def lie(self, lying: bool = True) -> None:
        """The disk says that it synced, and did not: no software survives this. For testing judges."""
        self._shared[LYING : LYING + 4] = struct.pack("<i", lying)

    @property
    def _end(self) -> int:
        return int(END.unpack_from(self._shared)[0])

    def _log(self) -> bytes:
        return (self.state / "log").read_bytes()

    def _at(self, positions: list[int]) -> list[Cut]:
        return list(self._replay(self._log(), positions))

    def _replay(self, log: bytes, positions: list[int]) -> Iterator[Cut]:
        platter = Platter(self._base, strict=self.strict)
        waiting = iter(records(log, positions[-1]))
        record: Record | None = next(waiting, None)
        for position in positions:
            while record is not None and record.position < position:
                platter.feed(record)
                record = next(waiting, None)
            yield Cut(position, platter)

    def _present(self) -> Iterator[Path]:
        for folder, _, names in os.walk(self.directory):
            yield from (Path(folder) / name for name in names if not name.endswith("-shm"))
