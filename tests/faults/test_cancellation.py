"""Every suspension is a point, each is hit, and nothing else is."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.cancellation import Outcome, every_point, thrown_at


class Store:
    """Three steps, of which the middle one is in a thread; undone unless all were done."""

    def __init__(self, *, careless: bool = False) -> None:
        self.steps: list[str] = []
        self.seen: list[list[str]] = []
        self._careless = careless

    async def commit(self) -> str:
        try:
            await self._step("one", asyncio.sleep(0))
            await self._step("two", asyncio.to_thread(str))
            await self._step("three", asyncio.sleep(0.001))
        except asyncio.CancelledError:
            self.seen.append(list(self.steps))
            if not self._careless:
                self.steps.clear()
            raise
        return "stored"

    async def _step(self, name: str, wait) -> None:
        await wait
        self.steps.append(name)


async def test_it_is_cancelled_at_each_of_its_points_and_then_returns() -> None:
    store, outcomes = Store(), []
    async for point, outcome in every_point(store.commit):
        outcomes.append((point, outcome))
        assert store.steps == (["one", "two", "three"] if outcome.done else [])
    cancelled = Outcome(False, True)
    assert outcomes == [(0, cancelled), (1, cancelled), (2, cancelled), (3, Outcome(True, False, "stored"))]
    assert store.seen == [[], ["one"], ["one", "two"]]


async def test_half_a_commit_is_found() -> None:
    store = Store(careless=True)
    assert not (await thrown_at(1, store.commit)).done
    assert store.steps == ["one"]


async def test_work_that_finishes_in_spite_of_it_is_done() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "finished"

    assert await thrown_at(0, stubborn) == Outcome(True, True, "finished")


async def test_another_error_in_answer_is_told() -> None:
    async def clumsy() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            raise KeyError("cleanup")

    outcome = await thrown_at(0, clumsy)
    assert isinstance(outcome.error, KeyError)


async def test_an_error_of_its_own_is_raised() -> None:
    async def broken() -> None:
        await asyncio.sleep(0)
        raise KeyError("work")

    with pytest.raises(KeyError):
        await thrown_at(5, broken)


async def test_whoever_waits_can_be_cancelled_himself() -> None:
    ended = asyncio.Event()

    async def long() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            ended.set()

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(thrown_at(5, long), 0.01)
    await asyncio.wait_for(ended.wait(), 1)


async def test_endless_work_is_given_up() -> None:
    async def turns() -> None:
        for _ in range(100):
            await asyncio.sleep(0)

    with pytest.raises(AssertionError, match="more than 20 points"):
        async for _ in every_point(turns, most=20):
            pass
