"""Where a run takes place: one URL, one journal, and the processes that use them.

Each transport has a stage of its own, with what is peculiar to it:

>>> with SqliteStage(tmp_path) as stage:
...     stage.consumer(); producer = stage.producer()
...     stage.strike(producer, 0.1, "kill -9 producer")
...     stage.until_settled(); stage.story().check()
"""

from __future__ import annotations

import abc
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, TypeVar

from tests.faults import plan
from tests.faults.history import Journal, Story
from tests.faults.processes import Gone, Moments, Worker
from tests.faults.worker import Settings

__all__ = ["PATHS", "Stage", "reply"]

ROOT = Path(__file__).resolve().parents[2]
PATHS = os.pathsep.join(str(ROOT / each) for each in ("", "transports", "observability"))
PATIENCE = 60.0


_Self = TypeVar("_Self", bound="Stage")


class Stage(abc.ABC):
    transport: ClassVar[str]
    """The module that makes one in a worker."""
    insist: ClassVar[bool] = False
    """Producers try again what failed."""

    def __init__(
        self, folder: Path, *, query: str, env: Mapping[str, str] | None = None, seed: int = plan.SEED
    ) -> None:
        self.folder = folder
        self.seed = seed
        self.moments = Moments(seed)
        self.journal_path = folder / "journal"
        self.journal = Journal(self.journal_path)
        self.query = query
        self._env = {**(os.environ if env is None else env), "PYTHONPATH": PATHS}
        self._workers: list[Worker] = []
        self._names = 0
        self._tail = _Tail(self.journal_path)

    @property
    @abc.abstractmethod
    def url(self) -> str:
        """With the query."""

    # Processes

    def start(
        self, role: str, *, python: str = sys.executable, env: Mapping[str, str] | None = None, **how: Any
    ) -> Worker:
        self._names += 1
        how = {"name": f"{role[0]}{self._names}", "insist": self.insist, **how}
        settings = Settings(role=role, url=self.url, journal=str(self.journal_path), transport=self.transport, **how)
        command = (python, "-m", "tests.faults.worker", json.dumps(asdict(settings)))
        worker = Worker(*command, env={**self._env, **(env or {})}, cwd=str(ROOT))
        self._workers.append(worker)
        return worker

    def producer(self, **how: Any) -> Worker:
        return self.start("produce", **how)

    def consumer(self, **how: Any) -> Worker:
        """Returns once it listens."""
        worker = self.start("consume", **how)
        worker.expect("ready")
        return worker

    def undertaker(self, channel: str = "_dlq.work") -> Worker:
        """Writes down what was dead-lettered."""
        worker = self.start("bury", channel=channel, group="undertaker")
        worker.expect("ready")
        return worker

    def strike(self, worker: Worker, seconds: float, name: str) -> None:
        """kill -9, so many seconds from now."""
        time.sleep(seconds)
        self.journal.fault(name)
        worker.kill()

    def strikes(
        self,
        start: Callable[[], Worker],
        count: int,
        name: str,
        *,
        before: Callable[[Worker], None],
        most: float = 0.1,
        alive: int = 3,
    ) -> None:
        """Several are alive, one is killed, up to so many seconds after ``before``, and another has begun to start."""
        workers = deque(start() for _ in range(alive))
        for number in range(count):
            victim = workers.popleft()
            before(victim)
            if number + alive < count:
                workers.append(start())
            self.strike(victim, self.moments.next(0.0, most), name)

    def publish(self, first: int, count: int, *, timeout: float = PATIENCE, **how: Any) -> None:
        """By a producer that ends by itself."""
        with self.producer(first=first, count=count, **how) as producer:
            producer.expect(f"produced {first + count}", timeout=timeout)
            producer.say("stop")
            producer.wait()

    # What became of it

    def until_settled(self, *, timeout: float = PATIENCE, groups: tuple[str, ...] = ("g",)) -> None:
        """Until every acknowledged message is settled or dead-lettered, or for so long none more was: the story tells
        that, and what the workers were at is printed.
        """
        deadline, left = time.monotonic() + timeout, self.outstanding(groups)
        while left and time.monotonic() < deadline:
            time.sleep(0.02)
            if (now := self.outstanding(groups)) < left:
                deadline, left = time.monotonic() + timeout, now
        if self.outstanding(groups):
            self.show()

    def show(self) -> None:
        """What the workers are at."""
        for worker in self._workers:
            print(worker.stacks(), file=sys.stderr)

    def outstanding(self, groups: tuple[str, ...] = ("g",)) -> int:
        return self._tail.outstanding(groups)

    def story(self, *groups: str) -> Story:
        return Story.read(self.journal_path, seed=self.seed, groups=groups or ("g",))

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for worker in self._workers:
            worker.__exit__(None, None, None)
        self.journal.close()


def reply(worker: Worker, question: str = "status", *, timeout: float = 20.0) -> dict[str, Any]:
    """What it answers to ``status`` or ``stop``."""
    word = {"status": "status ", "stop": "closed "}[question]
    before = sum(line.startswith(word) for line in worker.lines)
    worker.say(question)

    def answered(lines: list[str]) -> bool:
        return sum(line.startswith(word) for line in lines) > before

    try:
        lines = worker.until(answered, timeout=timeout, what=word)
    except Gone:
        print(worker.stacks(), file=sys.stderr)
        raise
    answer: dict[str, Any] = json.loads([line for line in lines if line.startswith(word)][-1].removeprefix(word))
    return answer


class _Tail:
    """Reads what was added to a journal."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._acked: set[str] = set()
        self._over: set[tuple[str, str]] = set()

    def outstanding(self, groups: tuple[str, ...]) -> int:
        self._read()
        return sum((group, id) not in self._over for group in groups for id in self._acked)

    def _read(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        for event in map(json.loads, whole.splitlines()):
            if event["what"] == "acked":
                self._acked.add(event["id"])
            elif event["what"] in ("settled", "buried"):
                self._over.add((event["group"], event["id"]))
