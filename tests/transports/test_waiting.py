"""Who waits is woken, is not kept too long, and is cancelled when he is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from neuralcore_transports.waiting import woken


async def test_what_happens_ends_it():
    event = asyncio.Event()
    asyncio.get_running_loop().call_soon(event.set)
    await asyncio.wait_for(woken(event, 60.0), 10.0)


async def test_so_does_its_time():
    await asyncio.wait_for(woken(asyncio.Event(), 0.01), 10.0)


@pytest.mark.parametrize("first", ["set", "cancel"])
async def test_a_cancellation_is_not_forgotten_though_it_happens_at_that_moment(first):
    event = asyncio.Event()
    waiting = asyncio.ensure_future(woken(event, 60.0))
    await asyncio.sleep(0)
    for what in (event.set, waiting.cancel) if first == "set" else (waiting.cancel, event.set):
        what()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
