"""The process that consumes, seen from the one that publishes."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any

from benchmarks._loads import Load
from benchmarks._redis import PATIENCE
from benchmarks._sink import CheckFailed

__all__ = ["Child"]


class Child:
    """The consuming process, for n messages of a load; ends with the block."""

    def __init__(self, kind: str, url: str, n: int, load: Load, *, module: str = "benchmarks._redis_child") -> None:
        self._kind, self._module = kind, module
        self._arguments = (kind, url, str(n), str(load.nap_ms), str(load.text.size))

    async def __aenter__(self) -> Child:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._module,
            *self._arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        try:
            await self._line()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.communicate()

    async def told(self) -> Any:
        """What it has handled, once all of it is settled."""
        return json.loads(await self._line())

    async def _line(self) -> bytes:
        assert self._process.stdout
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        except asyncio.TimeoutError:
            raise CheckFailed(f"{self._kind}: messages did not come") from None
        if not line:
            raise RuntimeError(f"the process of {self._kind} failed; see above")
        return line
