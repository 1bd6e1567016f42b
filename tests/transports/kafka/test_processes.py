"""Processes that fork, and processes that end, whatever their buses were doing."""

from __future__ import annotations

import signal
import time

import pytest

from tests.transports.programs import ended, program

pytestmark = pytest.mark.timeout(120)

PATIENCE = 40.0


@pytest.fixture
def url(url_with):
    return url_with("lease=6&partitions=1")


def test_a_forked_child_is_told_and_makes_its_own(url):
    said = ended(
        url,
        """
        async def main():
            got = asyncio.Queue()
            async with MessageBus(url) as bus:
                await bus.subscribe("jobs", got.put, group="g").ready()
                await bus.publish("jobs", "before")
                async with bus.transaction() as tx:
                    await tx.publish("jobs", "by a transaction")
                code = await end_of(fork(told, bus))
                await bus.publish("jobs", "after")
                async with bus.transaction() as tx:
                    await tx.publish("jobs", "by another")
                found = [(await asyncio.wait_for(got.get(), 20)).payload for _ in range(5)]
                print(code, found)

        asyncio.run(main())
        """,
    )
    assert said == ["7 ['before', 'by a transaction', 'child', 'after', 'by another']"]


ENDINGS = {
    "its main function returns, and nothing was closed": (
        """
        async def main():
            bus = MessageBus(url)
            await bus.start()
            bus.subscribe("jobs", print, group="g")
            await bus.publish("jobs", 1)
            print("ready", flush=True)
        asyncio.run(main())
        """,
        False,
        0,
    ),
    "sys.exit in the middle": (
        """
        async def main():
            async with MessageBus(url) as bus:
                await bus.subscribe("jobs", print, group="g").ready()
                print("ready", flush=True)
                sys.exit(3)
        asyncio.run(main())
        """,
        False,
        3,
    ),
    "Ctrl-C while a handler runs": (
        """
        async def main():
            async with MessageBus(url) as bus:
                async def stay(message):
                    print("ready", flush=True)
                    await asyncio.sleep(0.5)
                bus.subscribe("jobs", stay, group="g")
                await bus.publish("jobs", 1)
                await asyncio.sleep(60)
        asyncio.run(main())
        """,
        True,
        -signal.SIGINT,
    ),
    "Ctrl-C while a transaction ends": (
        """
        async def main():
            async with MessageBus(url) as bus:
                while True:
                    async with bus.transaction() as tx:
                        await tx.publish("jobs", 1)
                        print("ready", flush=True)
        asyncio.run(main())
        """,
        True,
        -signal.SIGINT,
    ),
}


@pytest.mark.parametrize(("text", "interrupted", "code"), ENDINGS.values(), ids=ENDINGS)
def test_a_process_ends(url, text, interrupted, code):
    with program(url, text) as running:
        running.expect("ready")
        if interrupted:
            time.sleep(0.05)
            running.interrupt()
        assert running.wait(PATIENCE) == code, running.errors
        assert "Fatal Python error" not in running.errors
