"""What comes on two connections, in one order."""

from __future__ import annotations

import asyncio
import random

import pytest

from neuralcore_transports.redis.turns import Turns


async def test_what_is_early_waits():
    turns, taken = Turns(), []
    for turn in (3, 1, 4, 2):
        turns.came(turn, lambda turn=turn: taken.append(turn))
    assert taken == [1, 2, 3, 4]
    assert turns.last == 4


@pytest.mark.parametrize("seed", range(20))
async def test_answers_and_news_in_any_order(seed):
    """Each in its own, late by different times."""
    chance, turns, taken = random.Random(seed), Turns(), []
    kinds = [chance.choice(["answer", "news"]) for _ in range(200)]

    async def answers():
        for turn, kind in enumerate(kinds, 1):
            if kind == "answer":
                await asyncio.sleep(chance.choice([0, 0, 0.0001]))
                assert await turns.reach(turn)
                taken.append(turn)
                turns.took(turn)

    async def news():
        for turn, kind in enumerate(kinds, 1):
            if kind == "news":
                await asyncio.sleep(chance.choice([0, 0, 0.0001]))
                turns.came(turn, lambda turn=turn: taken.append(turn))

    await asyncio.gather(answers(), news())
    assert taken == list(range(1, 201))


async def test_who_waits_for_what_never_comes_is_told():
    turns, taken = Turns(), []
    waiting = asyncio.ensure_future(turns.reach(3))
    await asyncio.sleep(0)
    turns.came(2, lambda: taken.append(2))
    turns.end()
    assert not await waiting
    assert not await turns.reach(1)
    assert taken == []
