"""How long is waited after failures."""

import asyncio
import logging
import random

from neuralcore.messaging.remote.backoff import Backoff
from neuralcore.testing import virtual


class Longest(random.Random):
    """No jitter."""

    def random(self):
        return 1.0


@virtual
async def test_waits_grow_up_to_a_bound():
    backoff = Backoff("it", Longest())
    waits = [backoff.failed(OSError()) for _ in range(40)]
    assert waits == sorted(waits)
    assert waits[0] < 0.1
    assert max(waits) == waits[-1] <= 2.0


@virtual
async def test_success_begins_anew():
    backoff = Backoff("it", Longest())
    first = backoff.failed(OSError())
    backoff.failed(OSError())
    backoff.worked()
    assert backoff.failed(OSError()) == first


@virtual
async def test_failures_far_apart_are_not_in_a_row(caplog):
    """A fetch that waits for something to come works all the time, and says so only at its end."""
    backoff = Backoff("it", Longest())
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            backoff.failed(OSError())
            await asyncio.sleep(30)
    assert len(caplog.records) == 20
    assert all("(1 in a row)" in record.message for record in caplog.records)


@virtual
async def test_failures_that_take_long_are_in_a_row(caplog):
    backoff = Backoff("it", Longest())
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            await backoff.wait(OSError())
            await asyncio.sleep(10)
    assert len(caplog.records) == 5, "the 1st, 2nd, 4th, 8th, 16th"
