"""What the simulation has found, as small as it can be told."""

from __future__ import annotations

import pytest

from tests.transports.sqlite.twins import Twins, run


def agree(*ops, make=Twins):
    told = run(ops, make)
    if told is not None:
        pytest.fail(told, pytrace=False)


def publish(channel="b", **fields):
    return ("commit", 0, [{"channel": channel, **fields}], [])


def test_an_inbox_that_is_opened_again_is_empty():
    agree(("inbox", 0), ("commit", 0, [{"inbox": 0, "n": 0}], []), ("inbox", 0), ("take", 0))
