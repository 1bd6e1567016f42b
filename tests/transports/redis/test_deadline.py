"""Waiting with a deadline."""

from __future__ import annotations

import asyncio

import pytest

from neuralcore_transports.redis.deadline import within


async def test_it_answers_what_the_work_does_and_raises_what_it_raises():
    assert await within(5, asyncio.sleep(0, "done")) == "done"

    async def fails() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await within(5, fails())


async def test_what_takes_too_long_is_cancelled():
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    with pytest.raises(asyncio.TimeoutError):
        await within(0.01, work())
    assert ended.is_set()


async def test_who_is_cancelled_takes_the_work_along():
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    waiting = asyncio.ensure_future(within(60, work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()


@pytest.mark.parametrize("error", [None, OSError("refused")])
async def test_a_cancellation_is_not_forgotten_when_the_work_is_done_at_that_moment(error):
    async def work() -> None:
        await asyncio.sleep(0)
        waiting.cancel()
        if error is not None:
            raise error

    waiting = asyncio.ensure_future(within(60, work()))
    with pytest.raises(asyncio.CancelledError):
        await waiting
