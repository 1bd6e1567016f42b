"""A producer or a consumer in a process of its own: ``python -m tests.faults.worker '{"role": "produce", "url": …}'``.

It says ``ready``, and then what tests wait for: ``acked ID``, ``begun ID``, ``done ID``, ``error TYPE``. It hears
``stop`` (drain, say ``closed {…}``, end), ``status`` (it answers ``status {…}``) and ``publish FIRST COUNT``. At
SIGUSR1 it writes to stderr where its tasks and threads stand.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import faulthandler
import importlib
import itertools
import json
import logging
import os
import resource
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore", "neuralcore", RuntimeWarning)  # interpreters without the native core

from neuralcore import Message, Retention  # noqa: E402
from neuralcore.messaging.bus import MessageBus  # noqa: E402
from neuralcore.messaging.errors import NotStored, PublishUnknown, Unavailable  # noqa: E402
from neuralcore.messaging.retry import RetryPolicy  # noqa: E402
from tests.faults.history import Journal  # noqa: E402

__all__ = ["Settings", "main"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    role: str
    """``produce``, ``consume``, ``run`` (a consumer under ``bus.run()``) or ``bury`` (a consumer of dead letters)."""
    url: str
    journal: str
    transport: str
    """The module whose ``make(url, **tuning)`` makes one."""
    tuning: dict[str, Any] = dataclasses.field(default_factory=dict)
    name: str = "w"
    channel: str = "work"
    group: str = "g"
    # Producing
    first: int = 0
    count: int = 1 << 40
    at_once: int = 4
    pause: float = 0.0
    size: int = 0
    keys: int = 0
    copies: int = 1
    insist: bool = False
    """Publish again, with the same id, what was not stored or may not have been, until it is acknowledged."""
    delay: float = 0.0
    not_before: float = 0.0
    """Seconds from now, by the wall clock."""
    orders: dict[str, str] = dataclasses.field(default_factory=dict)
    """What the handlers of some messages are to do, by their number: ``die``, ``fail``, ``fail once``, ``stay``."""
    # Consuming
    obey: bool = True
    """Do what messages order."""
    concurrency: int = 1
    capacity: int = 1000
    work: float = 0.0
    """Seconds that a handler waits …"""
    block: float = 0.0
    """… and that it blocks the loop."""
    into: str = ""
    """A channel that handlers pass their message on to, under the same id, in one transaction with its end."""
    max_attempts: int = 5
    retry: float = 0.05
    wait: bool = False
    """Produce only when told."""
    # The process
    grace: float = 10.0
    """Seconds for draining after SIGTERM."""
    keep: int = 0
    """Settled messages that the channel keeps."""
    broken: str = ""
    """For testing the tests: ``claims`` (says acked before it publishes), ``acks first``."""


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


class Process:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.journal = Journal(settings.journal)
        transport = importlib.import_module(settings.transport).make(settings.url, **settings.tuning)
        self.bus = MessageBus(transport, name=settings.name, capacity=settings.capacity)
        if settings.keep:
            self.bus.create_channel(settings.channel, retention=Retention(count=settings.keep))
        self.handled = 0
        self.lost = 0
        self.repeats = 0
        self.errors: set[str] = set()
        self.unknown: set[str] = set()
        """What was published once without it being known whether it was stored."""
        self._witness = (
            os.open(os.environ["NC_WITNESS"], os.O_WRONLY | os.O_APPEND) if "NC_WITNESS" in os.environ else -1
        )

    def witness(self, what: str, id: str) -> None:
        if self._witness >= 0:
            os.write(self._witness, f"{what}{id}\n".encode())

    # Producing

    async def produce(self, first: int, count: int) -> None:
        numbers = iter(range(first, first + count))
        await asyncio.gather(*(self._publish_each(numbers) for _ in range(self.settings.at_once)))
        say("produced", first + count)

    async def _publish_each(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            for _ in range(self.settings.copies):
                await self._publish(number)
            if self.settings.pause:
                await asyncio.sleep(self.settings.pause)

    async def _publish(self, number: int) -> None:
        settings, journal = self.settings, self.journal
        id = f"{settings.name}-{number}"
        key = f"{settings.name}-k{number % settings.keys}" if settings.keys else None
        journal.attempted(id, key=key)
        self.witness("?", id)
        if settings.broken == "claims":
            journal.acked(id)
            say("acked", id)
        wait = 0.02
        while await self._try(number, id, key) and settings.insist:
            self.repeats += 1
            await asyncio.sleep(wait)
            wait = min(2 * wait, 0.5)

    async def _try(self, number: int, id: str, key: str | None) -> bool:
        """Whether it may be worth another."""
        settings, journal = self.settings, self.journal
        try:
            await self.bus.publish(settings.channel, self._payload(number), message_id=id, key=key, **self._options())
        except NotStored as error:
            if id not in self.unknown:
                journal.refused(id)
            self._failed(error)
            return True
        except Exception as error:
            self.unknown.add(id)  # an earlier try may have stored it, whatever becomes of the next
            self._failed(error)
            return isinstance(error, PublishUnknown | Unavailable)
        journal.acked(id)
        self.witness("+", id)
        say("acked", id)
        return False

    def _payload(self, number: int) -> dict[str, Any]:
        order = self.settings.orders.get(str(number), "")
        return {"n": number, "do": order, "filler": "x" * self.settings.size}

    def _options(self) -> dict[str, float]:
        settings = self.settings
        options = {"delay": settings.delay} if settings.delay else {}
        return {**options, "not_before": time.time() + settings.not_before} if settings.not_before else options

    def _failed(self, error: Exception) -> None:
        kind = type(error).__name__
        self.errors.add(kind)
        say("error", kind, error)

    # Consuming

    def subscribe(self) -> None:
        settings = self.settings
        retry = RetryPolicy(max_attempts=settings.max_attempts, base=settings.retry, factor=1.0, jitter=False)
        self.bus.subscribe(
            settings.channel,
            self.bury if settings.role == "bury" else self.handle,
            group=settings.group,
            concurrency=settings.concurrency,
            retry=retry,
        )

    async def bury(self, letter: Message) -> None:
        headers = letter.headers
        self.journal.buried(headers["nc-dlq-id"], group=headers["nc-dlq-group"])
        say("buried", headers["nc-dlq-id"], headers["nc-dlq-reason"], headers["nc-dlq-attempts"])

    async def handle(self, message: Message) -> None:
        settings, id = self.settings, message.id
        self.journal.delivered(id, group=settings.group, attempt=message.attempt)
        say("begun", id, message.attempt)
        if settings.broken == "acks first":
            await message.ack()
        if settings.obey:
            await self._obey(message)
        if settings.block:
            time.sleep(settings.block)  # noqa: ASYNC251 - what must not be done is what is tested
        if settings.work:
            await asyncio.sleep(settings.work)
        if settings.into:
            async with message.transaction() as tx:
                await tx.publish(settings.into, message.payload, message_id=id)
        self.lost += message.lease_lost
        self.handled += 1
        self.witness("-", id)
        self.journal.settled(id, group=settings.group)
        say("done", id)

    async def _obey(self, message: Message) -> None:
        match message.payload["do"]:
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stay":
                await asyncio.sleep(3600)
            case "fail":
                raise RuntimeError("as told")
            case "fail once" if message.attempt == 1:
                raise RuntimeError("as told")

    # Being told

    def status(self) -> dict[str, Any]:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return {
            "handled": self.handled,
            "lease lost": self.lost,
            "repeats": self.repeats,
            "errors": sorted(self.errors),
            "counts": dict(self.bus.metrics().transport),
            "rss": pages * resource.getpagesize(),
        }

    async def serve(self) -> None:
        if self.settings.role != "produce":
            self.subscribe()
        words: asyncio.Queue[list[str]] = asyncio.Queue()
        _listen(asyncio.get_running_loop(), words)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _show_stacks)
        await self.bus.start()
        say("ready")
        producing = None
        if self.settings.role == "produce" and not self.settings.wait:
            producing = asyncio.ensure_future(self.produce(self.settings.first, self.settings.count))
        while (told := await words.get()) != ["stop"]:
            if told == ["status"]:
                say("status", json.dumps(self.status()))
            elif told[0] == "publish":
                await self.produce(int(told[1]), int(told[2]))
        if producing is not None:
            producing.cancel()
        await self.end()

    def run(self) -> None:
        """Until a signal comes."""
        self.subscribe()
        starting = self.bus.start

        async def start() -> None:
            await starting()
            say("ready")

        self.bus.start = start  # type: ignore[method-assign]
        report = self.bus.run(timeout=self.settings.grace)
        say("closed", json.dumps(dataclasses.asdict(report)))

    async def end(self) -> None:
        report = await self.bus.close()
        say("closed", json.dumps(dataclasses.asdict(report)))


def _show_stacks() -> None:
    for task in asyncio.all_tasks():
        task.print_stack(file=sys.stderr)
    faulthandler.dump_traceback()


def _listen(loop: asyncio.AbstractEventLoop, words: asyncio.Queue[list[str]]) -> None:
    def read() -> None:
        for line in itertools.chain(sys.stdin, ["stop"]):
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(words.put_nowait, line.split())

    threading.Thread(target=read, daemon=True).start()


def main(text: str) -> None:
    settings = Settings(**json.loads(text))
    logging.basicConfig(level=logging.WARNING)
    faulthandler.register(signal.SIGUSR1)  # until there is a loop
    process = Process(settings)
    if settings.role != "run":
        asyncio.run(process.serve())
        return
    process.run()


if __name__ == "__main__":
    main(sys.argv[1])
