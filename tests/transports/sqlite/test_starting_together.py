"""Many processes that begin, and end, on one file at the same time."""

from __future__ import annotations

import asyncio
import sys

import pytest

PROGRAM = """
import asyncio, sys
from neuralcore import MessageBus

async def main(url):
    async with MessageBus(url) as bus:
        await bus.publish("jobs", 1)
    print("done", flush=True)

asyncio.run(main(sys.argv[1]))
"""


async def run(url):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, error = await process.communicate()
    return said.decode().strip(), error.decode()[-500:]


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", range(2))
async def test_all_of_them_come_up(tmp_path, number):
    """Who opens or closes a file may have it alone for a moment; that is no error of the others."""
    url = f"sqlite://{tmp_path}/bus.db?lease=1"
    ended = await asyncio.gather(*[run(url) for _ in range(6)])
    assert [said for said, _ in ended] == ["done"] * 6, [error for _, error in ended if error]
