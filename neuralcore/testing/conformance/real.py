"""The harness for any URL: real time, and real processes to kill."""

from __future__ import annotations

import asyncio
import signal
import sys
from urllib.parse import parse_qs, urlsplit

from neuralcore.testing.conformance.harness import Client, Harness
from neuralcore.testing.conformance.promise import Broken, Unproven

__all__ = ["UrlHarness"]

_VICTIM = "neuralcore.testing.conformance.victim"


class UrlHarness(Harness):
    """Kills clients with SIGKILL where the transport spans processes; cannot restart its broker.

    An option ``lease=`` of the URL is taken for the seconds of a lease: with 1 the suite takes minutes, not an hour.
    """

    shared = True

    def __init__(self, url: str) -> None:
        self.name = self._url = url
        for lease in parse_qs(urlsplit(url).query).get("lease", ()):
            self.lease = float(lease)

    def transport(self) -> str:
        return self._url

    async def spawn(self, channel: str, group: str, *, concurrency: int = 1) -> Client:
        victim = await self._program("hold", channel, group, str(concurrency))
        await victim.line("ready")
        return victim

    async def publish_and_die(self, channel: str, count: int) -> None:
        victim = await self._program("publish", channel, str(count))
        await victim.line("published")
        await victim.kill()

    async def _program(self, *arguments: str) -> Victim:
        if not self.capabilities().multi_process:
            raise Unproven("the transport does not span processes, so none can be killed")
        return await Victim.start(self._url, *arguments)


class Victim(Client):
    """Steers ``neuralcore.testing.conformance.victim`` by its input and output."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._said = {"holding": 0, "lost": 0}

    @classmethod
    async def start(cls, *arguments: str) -> Victim:
        pipe = asyncio.subprocess.PIPE
        program = (sys.executable, "-m", _VICTIM)
        return cls(await asyncio.create_subprocess_exec(*program, *arguments, stdin=pipe, stdout=pipe))

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    async def orphan(self) -> int:
        """Close its input, as the end of its parent would; its exit code."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return await self._process.wait()

    async def line(self, *wanted: str) -> str:
        """The next line that it prints, which must be one of these. Raises Broken."""
        assert self._process.stdout is not None
        line = (await self._process.stdout.readline()).decode().strip()
        if line not in wanted:
            raise Broken(f"the client process said {line!r} where {' or '.join(map(repr, wanted))} was expected")
        return line

    async def holding(self, count: int) -> None:
        await self._told("holding", count)

    async def lost(self, count: int) -> None:
        await self._told("lost", count)

    async def _told(self, word: str, count: int) -> None:
        while self._said[word] < count:
            self._said[await self.line(*self._said)] += 1

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.communicate()

    async def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    async def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    async def finish(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"finish\n")
        await self._process.stdin.drain()
