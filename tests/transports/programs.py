"""Programs of their own that use a bus, fork and end.

>>> with program(url, 'print("ready")') as running:
...     running.expect("ready")

They know ``url`` and what is in HEAD: ``own`` publishes by a bus that it makes, ``fork`` has a child do something,
``end_of`` says how the child ended: with 7 when it was told that its parent's bus is not for it, and made its own.
"""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

from tests.faults.processes import Worker

__all__ = ["ended", "program"]

ROOT = Path(__file__).parents[2]
PATIENCE = 40.0

HEAD = """
import asyncio, os, signal, sys, threading, time
from neuralcore import Forked, Message, MessageBus

url = sys.argv[1]

async def own(payload):
    async with MessageBus(url) as bus:
        await bus.publish("jobs", payload)

def fork(work, *arguments):
    if pid := os.fork():
        return pid
    threading.Thread(target=work, args=arguments).start()  # where no loop runs, as one does here
    threading.Event().wait(30)
    os._exit(1)

async def end_of(pid):
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    return os.waitstatus_to_exitcode(status)

def told(bus):
    try:
        asyncio.run(bus.publish("jobs", "never"))
    except Forked:
        asyncio.run(own("child"))
        os._exit(7)
"""


def program(url: str, text: str) -> Worker:
    return Worker(
        *(sys.executable, "-W", "ignore::DeprecationWarning", "-c", HEAD + textwrap.dedent(text), url),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        cwd=str(ROOT),
    )


def ended(url: str, text: str) -> list[str]:
    """What it has said when it has come to its end."""
    with program(url, text) as running:
        assert running.wait(PATIENCE) == 0, running.errors
        return running.lines
