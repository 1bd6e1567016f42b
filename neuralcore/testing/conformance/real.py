"""The harness for any URL: real time, and real processes to kill."""

from __future__ import annotations

import asyncio
import sys

from neuralcore.messaging.registry import transport_for
from neuralcore.messaging.transport import Capabilities
from neuralcore.testing.conformance.harness import Client, Harness
from neuralcore.testing.conformance.promise import Broken, Unproven

__all__ = ["UrlHarness"]


class UrlHarness(Harness):
    """Kills clients with SIGKILL where the transport spans processes; cannot restart its broker."""

    def __init__(self, url: str) -> None:
        self.name = self._url = url

    def transport(self) -> str:
        return self._url

    def capabilities(self) -> Capabilities:
        return transport_for(self._url).capabilities

    async def spawn(self, channel: str, group: str, *, concurrency: int = 1) -> Client:
        if not self.capabilities().multi_process:
            raise Unproven("the transport does not span processes, so none can be killed")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "neuralcore.testing.conformance.victim",
            self._url,
            channel,
            group,
            str(concurrency),
            stdout=asyncio.subprocess.PIPE,
        )
        victim = _Victim(process)
        await victim.line("ready")
        return victim


class _Victim(Client):
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._held = 0

    async def line(self, wanted: str) -> None:
        assert self._process.stdout is not None
        line = (await self._process.stdout.readline()).decode().strip()
        if line != wanted:
            raise Broken(f"the client process said {line!r} where {wanted!r} was expected")

    async def holding(self, count: int) -> None:
        while self._held < count:
            await self.line("holding")
            self._held += 1

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
