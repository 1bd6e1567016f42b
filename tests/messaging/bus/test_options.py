"""What a bus and its subscriptions refuse to be made with: at once, not when the first message comes."""

from datetime import timedelta
from typing import Any

import pytest

from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.errors import BadHandler, InvalidChannelName
from neuralcore.messaging.retry import RetryPolicy
from neuralcore.messaging.terms import Terms

SHARED: list[tuple[str, Any, type[Exception], str]] = [
    ("group", "", ValueError, "empty"),
    ("group", 5, TypeError, "str"),
    ("broadcast", 1, TypeError, "bool"),
    ("capacity", 0, ValueError, "at least 1"),
    ("capacity", 2**70, ValueError, "at most"),
    ("capacity", True, TypeError, "integer"),
    ("overflow", "bogus", ValueError, "block, drop_new, drop_old, reject"),
    ("overflow", ["block"], ValueError, "block, drop_new, drop_old, reject"),
    ("retry", 3, TypeError, "RetryPolicy"),
    ("retry", 0, TypeError, "RetryPolicy"),
    ("hold_keys", "x", TypeError, "bool"),
    ("start", timedelta(1), TypeError, "datetime"),
    ("dead_letter", 5, TypeError, "name, False or None"),
    ("dead_letter", True, TypeError, "name, False or None"),
    ("dead_letter", "a b", InvalidChannelName, "whitespace"),
    ("dead_letter", "a.*", InvalidChannelName, "wildcard"),
    ("dead_letter", "a", ValueError, "another channel"),
    ("expired", "x", ValueError, "count, dead_letter"),
]
OWN: list[tuple[str, Any, type[Exception], str]] = [
    ("concurrency", 0, ValueError, "at least 1"),
    ("concurrency", 1.5, TypeError, "integer"),
    ("concurrency", 10**9, ValueError, "at most 65536"),
    ("batch", -1, ValueError, "at least 0"),
    ("timeout", 0, ValueError, "positive"),
    ("timeout", float("inf"), ValueError, "finite"),
    ("timeout", True, TypeError, "number"),
    ("timeout", "x", TypeError, "number"),
    ("blocking", 1, TypeError, "bool or None"),
    ("name", 5, TypeError, "str"),
    ("filter", 3, BadHandler, "not callable"),
]
BUS: list[tuple[str, Any, type[Exception], str]] = [
    ("capacity", 0, ValueError, "at least 1"),
    ("capacity", "x", TypeError, "integer"),
    ("overflow", "bogus", ValueError, "block, drop_new, drop_old, reject"),
    ("retry", 3, TypeError, "RetryPolicy"),
    ("executor_threads", 0, ValueError, "at least 1"),
    ("auto_create", "x", TypeError, "bool"),
    ("clock", 3, TypeError, "Clock"),
    ("rng", 5, TypeError, "Random"),
    ("name", 5, TypeError, "str"),
]


@pytest.mark.parametrize(("option", "value", "error", "allowed"), SHARED + OWN)
def test_a_subscription_with_an_option_that_cannot_be_is_refused(
    option: str, value: Any, error: type[Exception], allowed: str
) -> None:
    bus = MessageBus()
    with pytest.raises(error, match=allowed) as caught:
        bus.subscribe("a", print, **{option: value})
    assert option in str(caught.value)
    assert repr(value) in str(caught.value)
    assert not bus._subscriptions


@pytest.mark.parametrize(("option", "value", "error", "allowed"), SHARED)
async def test_a_stream_with_an_option_that_cannot_be_is_refused(
    option: str, value: Any, error: type[Exception], allowed: str
) -> None:
    async with MessageBus() as bus:
        with pytest.raises(error, match=allowed):
            bus.stream("a", **{option: value})
        assert not list(bus._intakes)


@pytest.mark.parametrize(("option", "value", "error", "allowed"), BUS)
def test_a_bus_with_an_option_that_cannot_be_is_refused(
    option: str, value: Any, error: type[Exception], allowed: str
) -> None:
    with pytest.raises(error, match=allowed) as caught:
        MessageBus(**{option: value})
    assert option in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("started", [True, False])
async def test_a_member_that_disagrees_with_its_group_is_refused_and_forgotten(started: bool) -> None:
    got: list[int] = []

    async def collect(number: int) -> None:
        got.append(number)

    bus = MessageBus()
    if started:
        await bus.start()
    bus.subscribe("n", collect, group="g", retry=RetryPolicy(max_attempts=2))
    with pytest.raises(BadHandler, match=r"must agree.*retry"):
        bus.subscribe("n", print, group="g")
    bus.subscribe("n", collect, group="other")
    await bus.start()
    await bus.publish("n", 1)
    assert (await bus.close()).drained
    assert got == [1, 1]


@pytest.mark.parametrize("started", [False, True])
async def test_a_new_member_is_compared_with_one_of_its_group_and_nobody_else(monkeypatch, started):
    compared = []
    agree = Terms.agree
    monkeypatch.setattr(Terms, "agree", lambda *terms: compared.append(terms[1].pattern) or agree(*terms))
    bus = MessageBus()
    if started:
        await bus.start()
    for number in range(20):
        bus.subscribe(f"jobs.{number}", print, group="g")
        bus.subscribe(f"jobs.{number}", print, broadcast=True)
    assert compared == []
    for _ in range(3):
        bus.subscribe("jobs.7", print, group="g")
    assert compared == ["jobs.7"] * (6 if started else 3)
    with pytest.raises(BadHandler, match="must agree"):
        bus.subscribe("jobs.7", print, group="g", capacity=3)
    await bus.close()
