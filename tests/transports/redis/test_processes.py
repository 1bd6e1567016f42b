"""Processes that fork while their bus runs."""

from __future__ import annotations

import pytest

from tests.transports.clients import new_prefix
from tests.transports.programs import ended


@pytest.fixture(params=["redis", pytest.param("redis+cluster", marks=pytest.mark.slow)])
def url(request):
    scheme = request.param
    server = request.getfixturevalue("redis_cluster" if scheme == "redis+cluster" else "redis_server")
    return f"{server.url(scheme)}?prefix={new_prefix()}&lease=0.5"


def test_a_forked_child_is_told_and_makes_its_own(url):
    """The parent's connections are its own: a message that a handler has meanwhile is not taken from it."""
    said = ended(
        url,
        """
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
                code = await end_of(fork(told, bus))
                await asyncio.sleep(1.5)
                forked.set()
                await bus.publish("jobs", "after")
                found += [await asyncio.wait_for(got.get(), 20) for _ in range(2)]
                counted = bus.metrics().transport
                print(code, sorted(found), got.qsize())
                print([counted.get(name, 0) for name in ("upkeep_failed", "sessions_lost", "connections_lost")])

        asyncio.run(main())
        """,
    )
    assert said == ["7 [('after', 1), ('before', 1), ('child', 1)] 0", "[0, 0, 0]"]


def test_children_that_are_forked_at_any_moment_make_their_own(url):
    """Whatever the keeper's thread did just then: nothing that the child needs stays locked."""
    said = ended(
        url,
        """
        def child(number):
            signal.alarm(20)
            asyncio.run(own(number))
            os._exit(0)

        async def main():
            got = set()
            async with MessageBus(url) as bus:
                await bus.subscribe("jobs", lambda message: got.add(message.payload), group="g").ready()
                for number in range(20):
                    code = await end_of(fork(child, number))
                    assert code == 0, code
                deadline = time.monotonic() + 10
                while len(got) < 20 and time.monotonic() < deadline:
                    await asyncio.sleep(0.01)
                print(len(got), bus.metrics().transport.get("upkeep_failed", 0))

        asyncio.run(main())
        """,
    )
    assert said == ["20 0"]
