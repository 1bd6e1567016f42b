"""Processes that fork while their bus runs."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.transports.redis.clients import new_prefix

ROOT = Path(__file__).parents[3]

HEAD = """
import asyncio, os, signal, sys, threading, time
from neuralcore import Forked, MessageBus

url = sys.argv[1]
"""


def run(url: str, text: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", HEAD + textwrap.dedent(text), url],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        timeout=40,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(params=["redis", pytest.param("redis+cluster", marks=pytest.mark.slow)])
def url(request):
    scheme = request.param
    server = request.getfixturevalue("redis_cluster" if scheme == "redis+cluster" else "redis_server")
    return f"{server.url(scheme)}?prefix={new_prefix()}&lease=0.5"


def test_a_forked_child_is_told_and_makes_its_own(url):
    """The parent's connections are its own: a message that a handler has meanwhile is not taken from it."""
    said = run(
        url,
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
            got, forked = asyncio.Queue(), asyncio.Event()

            async def handle(message):
                await got.put((message.payload, message.attempt))
                if message.payload == "before":
                    await forked.wait()

            async with MessageBus(url) as bus:
                await bus.subscribe("jobs", handle, group="g", concurrency=4).ready()
                await bus.publish("jobs", "before")
                found = [await asyncio.wait_for(got.get(), 20)]
                if not (pid := os.fork()):
                    threading.Thread(target=child, args=[bus]).start()
                    threading.Event().wait(30)
                    os._exit(1)
                _, status = await asyncio.to_thread(os.waitpid, pid, 0)
                await asyncio.sleep(1.5)
                forked.set()
                await bus.publish("jobs", "after")
                found += [await asyncio.wait_for(got.get(), 20) for _ in range(2)]
                counted = bus.metrics().transport
                print(os.waitstatus_to_exitcode(status), sorted(found), got.qsize())
                print([counted.get(name, 0) for name in ("upkeep_failed", "sessions_lost", "connections_lost")])

        asyncio.run(main())
        """,
    )
    assert said.splitlines() == ["7 [('after', 1), ('before', 1), ('child', 1)] 0", "[0, 0, 0]"]


def test_children_that_are_forked_at_any_moment_make_their_own(url):
    """Whatever the keeper's thread did just then: nothing that the child needs stays locked."""
    said = run(
        url,
        """
        async def own(number):
            async with MessageBus(url) as bus:
                await bus.publish("jobs", number)

        def child(number):
            signal.alarm(20)
            asyncio.run(own(number))
            os._exit(0)

        async def main():
            got = set()
            async with MessageBus(url) as bus:
                await bus.subscribe("jobs", lambda message: got.add(message.payload), group="g").ready()
                for number in range(20):
                    if not (pid := os.fork()):
                        threading.Thread(target=child, args=[number]).start()
                        threading.Event().wait(30)
                    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
                    assert status == 0, status
                deadline = time.monotonic() + 10
                while len(got) < 20 and time.monotonic() < deadline:
                    await asyncio.sleep(0.01)
                print(len(got), bus.metrics().transport.get("upkeep_failed", 0))

        asyncio.run(main())
        """,
    )
    assert said == "20 0"
