"""One commit at a time, until the broker has everything."""

from __future__ import annotations

import asyncio

import pytest

from neuralcore_transports.kafka import committing as module
from neuralcore_transports.kafka.window import Window
from tests.transports.clients import eventually
from tests.transports.kafka.coordinator import BUSY, numbers, serving, settled, turns
from tests.transports.kafka.fakes import Hands


@pytest.fixture
async def broker(monkeypatch):
    with serving(monkeypatch) as made:
        yield made


async def test_what_is_wanted_is_sent_together(broker):
    one, two = settled(1), settled(2)
    broker.committing.want(one.partition)
    broker.committing.want(two.partition)
    broker.committing.want(one.partition)
    assert not broker.sent
    await turns()
    assert len(broker.sent) == 1
    assert broker.offsets() == {one.partition.key: 1, two.partition.key: 2}


async def test_what_is_sent_can_be_restored(broker):
    hands = Hands(number=next(numbers))
    hands.publish("a", "b", "c")
    _, b, _ = hands.take()
    hands.ack(b)
    broker.committing.want(hands.partition)
    await turns()
    ((sent,),) = broker.sent
    again = Window.restored(sent.offset, sent.metadata)
    assert [again.is_settled(offset) for offset in range(3)] == [False, True, False]


async def test_one_commit_at_a_time(broker):
    one, two = settled(1), settled(2)
    broker.committing.want(one.partition)
    await turns()
    broker.committing.want(two.partition)
    broker.committing.want(one.partition)
    await turns()
    assert len(broker.sent) == 1
    await broker.answer()
    assert len(broker.sent) == 2
    assert broker.offsets() == {one.partition.key: 1, two.partition.key: 2}
    await broker.answer()
    assert len(broker.sent) == 2, "and nothing without need"


async def test_after_a_commit_more_may_be_handed_out_not_before(broker):
    hands = Hands(number=next(numbers))
    hands.publish("a", "b")
    hands.reserve(0)
    broker.committing.want(hands.partition)
    await turns()
    assert hands.take() == []
    assert not broker.more
    await broker.answer()
    assert broker.more == [hands.partition]
    assert len(hands.take()) == 2


async def test_a_failed_commit_is_tried_again_with_what_is_new(broker):
    hands = Hands(number=next(numbers))
    hands.publish("a", "b")
    a, b = hands.take()
    hands.ack(a)
    broker.committing.want(hands.partition)
    await turns()
    hands.ack(b)
    await broker.answer(BUSY)
    assert hands.window.changed
    assert not broker.more
    await eventually(lambda: len(broker.sent) > 1, "another try")
    assert [broker.offsets(n)[hands.partition.key] for n in range(len(broker.sent))] == [1, 2]


async def test_of_one_that_failed_in_part_only_that_part_is_tried_again(broker):
    one, two = settled(1), settled(2)
    for hands in (one, two):
        broker.committing.want(hands.partition)
    await turns()
    await broker.answer(None, broker.told({two.partition.key: BUSY}))
    assert broker.more == [one.partition]
    await eventually(lambda: len(broker.sent) > 1, "another try")
    assert broker.offsets() == {two.partition.key: 2}


async def test_one_of_which_nothing_is_heard_is_tried_again(broker, monkeypatch):
    monkeypatch.setattr(module, "_LATE", 0.01)
    hands = settled(1)
    broker.committing.want(hands.partition)
    await eventually(lambda: len(broker.sent) > 1, "another try")
    assert not broker.more


async def test_its_late_answer_is_not_the_next_one_s(broker, monkeypatch):
    monkeypatch.setattr(module, "_LATE", 0.01)
    hands = Hands(number=next(numbers))
    hands.publish("a", "b")
    hands.reserve(0)
    hands.partition.demanded = 0
    broker.committing.want(hands.partition)
    await turns()
    hands.partition.demanded = 2
    monkeypatch.setattr(module, "_LATE", 30.0)
    await eventually(lambda: len(broker.sent) > 1, "another try")
    assert broker.offsets(0) == broker.offsets(1)
    await broker.answer(None, [broker.sent[0][0]])  # of the first
    assert hands.take() == [], "whether the broker has the second is not known"


# Waiting


async def test_without_anything_to_commit_nobody_waits(broker):
    assert broker.committing.confirmed().done()


async def test_who_waits_is_told_when_the_broker_has_it(broker):
    broker.committing.want(settled(1).partition)
    before = broker.committing.confirmed()
    await turns()
    during = broker.committing.confirmed()
    assert not before.done()
    assert not during.done()
    await broker.answer()
    assert before.done()
    assert during.done()


async def test_who_wants_something_while_a_commit_is_under_way_waits_for_the_next(broker):
    one = settled(1)
    broker.committing.want(one.partition)
    await turns()
    broker.committing.want(one.partition)
    waiting = broker.committing.confirmed()
    await broker.answer()
    assert not waiting.done()
    await broker.answer()
    assert waiting.done()


async def test_who_waits_goes_on_waiting_when_a_commit_failed(broker):
    broker.committing.want(settled(1).partition)
    waiting = broker.committing.confirmed()
    await turns()
    await broker.answer(BUSY)
    assert not waiting.done()
    await eventually(lambda: len(broker.sent) > 1, "another try")
    assert not waiting.done()
    await broker.answer()
    assert waiting.done()


async def test_a_waiter_that_gave_up_is_no_error(broker):
    broker.committing.want(settled(1).partition)
    broker.committing.confirmed().cancel()
    await turns()
    await broker.answer()
    assert broker.more


# Partitions go


async def test_a_forgotten_partition_is_never_sent(broker):
    gone, stays = settled(1), settled(2)
    for hands in (gone, stays):
        broker.committing.want(hands.partition)
    broker.committing.forget(gone.partition)
    await turns()
    assert broker.offsets() == {stays.partition.key: 2}


async def test_nor_one_that_is_not_owned_any_more(broker):
    gone = settled(1)
    broker.committing.want(gone.partition)
    waiting = broker.committing.confirmed()
    gone.partition.give_up(suspects=True)
    await turns()
    assert not broker.sent
    assert waiting.done(), "nobody waits for it for ever"


async def test_nor_is_it_tried_again_if_it_went_meanwhile(broker):
    gone, stays = settled(1), settled(2)
    for hands in (gone, stays):
        broker.committing.want(hands.partition)
    waiting = broker.committing.confirmed()
    await turns()
    gone.partition.give_up(suspects=True)
    broker.committing.forget(gone.partition)
    await broker.answer(BUSY)
    await eventually(lambda: len(broker.sent) > 1, "another try")
    assert broker.offsets() == {stays.partition.key: 2}
    await broker.answer()
    assert waiting.done()
    assert broker.more == [stays.partition]


async def test_nor_between_two_tries(broker):
    gone = settled(1)
    broker.committing.want(gone.partition)
    waiting = broker.committing.confirmed()
    await turns()
    await broker.answer(BUSY)
    broker.committing.forget(gone.partition)
    await asyncio.sleep(0.05)
    assert len(broker.sent) == 1
    assert waiting.done()


# Ending


async def test_after_closing_nothing_is_sent_and_nobody_waits(broker):
    broker.committing.want(settled(1).partition)
    waiting = broker.committing.confirmed()
    broker.committing.close()
    await turns()
    assert not broker.sent
    assert waiting.done()


async def test_an_answer_after_closing_is_nothing(broker):
    broker.committing.want(settled(1).partition)
    await turns()
    broker.committing.close()
    await broker.answer()
    assert not broker.more


async def test_an_answer_to_nothing_is_nothing(broker):
    await broker.answer()
    await broker.answer(BUSY)
    assert not broker.sent
