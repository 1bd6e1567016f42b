"""How long to wait is refused before anything has happened, when it is no such number."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from neuralcore import MessageBus

WRONG: list[tuple[Any, type[Exception]]] = [
    ("x", TypeError),
    (None, TypeError),
    (True, TypeError),
    (-1, ValueError),
    (math.inf, ValueError),
    (math.nan, ValueError),
    (1e300, ValueError),
]


@pytest.mark.parametrize(("timeout", "error"), WRONG)
async def test_a_bus_that_is_not_closed_for_its_time_out_goes_on(timeout: Any, error: type[Exception]) -> None:
    got = []
    async with MessageBus() as bus:
        subscription = bus.subscribe("a", lambda message: got.append(message.payload), blocking=False)
        with pytest.raises(error, match="timeout must be"):
            await bus.close(timeout=timeout)
        with pytest.raises(error, match="timeout must be"):
            await subscription.unsubscribe(timeout=timeout)
        assert subscription.active
        await bus.publish("a", 1)
    assert got == [1]


@pytest.mark.parametrize(("timeout", "error"), WRONG)
def test_a_program_is_not_run_with_it(timeout: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="timeout must be"):
        MessageBus().run(timeout=timeout)


async def test_no_time_at_all_is_a_time() -> None:
    bus = MessageBus()
    await bus.start()
    await bus.subscribe("a", print).unsubscribe(timeout=0)
    assert (await bus.close(timeout=0)).drained


@pytest.mark.parametrize("url", ["native://", "memory://"])
def test_the_end_of_a_loop_is_not_held_up_by_a_bus_that_nobody_closed(url: str) -> None:
    async def main() -> None:
        bus = MessageBus(url)
        await bus.start()
        begun = asyncio.Event()

        async def handler(message: object) -> None:
            begun.set()
            await asyncio.sleep(100)

        await bus.subscribe("a", handler, group="g").ready()
        await bus.publish("a", 1)
        await begun.wait()
        raise LookupError("a mistake of main's")

    with pytest.raises(LookupError, match="a mistake of main's"):
        asyncio.run(main())
