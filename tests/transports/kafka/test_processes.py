"""Processes that fork, and processes that end, whatever their buses were doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parents[3]
PATIENCE = 40.0

HEAD = """
import asyncio, os, signal, sys, threading
from neuralcore import Forked, Message, MessageBus

url = sys.argv[1]
"""


class Script:
    def __init__(self, broker: Any, text: str) -> None:
        url = f"kafka://{broker.bootstrap}/p{token_hex(4)}?lease=6&partitions=1"
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", HEAD + textwrap.dedent(text), url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )

    def until(self, wanted: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == wanted:
                return
        raise AssertionError(f"it ended without {wanted!r}: {self.process.communicate()}")

    def end(self) -> tuple[int, str, str]:
        """Its code, and what it said."""
        try:
            out, err = self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"it does not end: {self.process.communicate()}") from None
        return self.process.returncode, out, err


def test_a_forked_child_is_told_and_makes_its_own(kafka_broker: Any) -> None:
    script = Script(
        kafka_broker,
        """
        async def own(word):
            async with MessageBus(url) as bus:
                await bus.publish("jobs", word)

        def child(bus):
            try:
                asyncio.run(bus.publish("jobs", "never"))
            except Forked:
                asyncio.run(own("child"))
                os._exit(7)

        async def main():
            got = asyncio.Queue()
            async with MessageBus(url) as bus:
                await bus.subscribe("jobs", got.put, group="g").ready()
                await bus.publish("jobs", "before")
                async with bus.transaction() as tx:
                    await tx.publish("jobs", "by a transaction")
                if not (pid := os.fork()):
                    threading.Thread(target=child, args=[bus]).start()
                    threading.Event().wait(30)
                    os._exit(1)
                _, status = await asyncio.to_thread(os.waitpid, pid, 0)
                await bus.publish("jobs", "after")
                async with bus.transaction() as tx:
                    await tx.publish("jobs", "by another")
                found = [(await asyncio.wait_for(got.get(), 20)).payload for _ in range(5)]
                print(os.waitstatus_to_exitcode(status), found)

        asyncio.run(main())
        """,
    )
    code, out, err = script.end()
    assert (code, out.strip()) == (
        0,
        "7 ['before', 'by a transaction', 'child', 'after', 'by another']",
    ), err


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
        None,
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
        None,
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
        signal.SIGINT,
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
        signal.SIGINT,
        -signal.SIGINT,
    ),
}


@pytest.mark.parametrize(("text", "kill", "code"), ENDINGS.values(), ids=ENDINGS)
def test_a_process_ends(kafka_broker: Any, text: str, kill: signal.Signals | None, code: int) -> None:
    script = Script(kafka_broker, text)
    script.until("ready")
    if kill is not None:
        time.sleep(0.05)
        script.process.send_signal(kill)
    found, _, err = script.end()
    assert found == code, err
    assert "Fatal Python error" not in err
