"""A suspect's attempt that no broker has confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from secrets import token_hex
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from neuralcore import MessageBus
from neuralcore.messaging.transport import Outcome, Settlement, SettleStatus
from neuralcore_transports.kafka.member import Member
from neuralcore_transports.kafka.session import Session
from neuralcore_transports.kafka.window import Handing, Window
from tests.transports.clients import eventually
from tests.transports.kafka.fakes import Hands

WAIT = 20.0


def test_one_that_is_stored_again_counts_once() -> None:
    """Nobody knows whether the first one is with the broker."""
    hands = Hands(Window(0))
    hands.publish("a")
    (delivery,) = hands.take()
    for _ in range(3):
        assert hands.settle(delivery, Outcome.ATTEMPT)
    assert hands.settle(delivery, Outcome.NACK)
    (again,) = hands.take()
    assert again.attempt == 2


@pytest.mark.timeout(90)
async def test_its_handler_waits_for_that(kafka_broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on every transport: the bus asks again, until something is known of it."""
    see, settle, commit = Window.see, Member.settle, Session.commit
    answers: list[SettleStatus] = []
    asked: list[Settlement] = []
    held: list[tuple[Session, list[TopicPartition]]] = []
    silent = True

    async def settling(self: Member, settlements: Sequence[Settlement]) -> list[SettleStatus]:
        asked.extend(each for each in settlements if each.outcome is Outcome.ATTEMPT)
        found = await settle(self, settlements)
        answers.extend(found)
        return found

    def committing(self: Session, offsets: list[TopicPartition]) -> None:
        if asked and silent:
            held.append((self, offsets))
        else:
            commit(self, offsets)

    monkeypatch.setattr(Window, "see", lambda self, at: Handing(0, suspect=True) if see(self, at) else None)
    monkeypatch.setattr(Member, "settle", settling)
    monkeypatch.setattr(Session, "commit", committing)
    handled: list[int] = []
    url = f"kafka://{kafka_broker.bootstrap}/a{token_hex(4)}?lease=6&partitions=1&timeout=1"
    async with MessageBus(url) as bus:
        await bus.publish("orders", "tea")
        bus.subscribe("orders", lambda message: handled.append(message.attempt), group="g")
        await eventually(lambda: answers.count(SettleStatus.UNKNOWN) >= 2, "it to be asked for again", WAIT)
        assert handled == []
        silent = False
        for session, offsets in held:
            commit(session, offsets)
        await eventually(lambda: handled, "its handler", WAIT)
        await asyncio.sleep(0.5)
        assert handled == [1]
        assert len(asked) >= 3
