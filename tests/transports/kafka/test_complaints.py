"""Commits that brokers refuse for good are told of so that somebody hears it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from secrets import token_hex

import pytest
from confluent_kafka import KafkaError

from neuralcore import MessageBus
from neuralcore_transports.kafka.complaints import Complaints
from tests.transports.clients import eventually

ORDERS, JOBS = ("nc.orders", 0), ("nc.jobs", 3)
BUSY = KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
GROUP = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)
TOPIC = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
LONG = KafkaError(KafkaError.OFFSET_METADATA_TOO_LARGE)


class Group:
    def __init__(self, caplog):
        caplog.set_level(logging.DEBUG, "neuralcore.kafka")
        self._log = caplog
        self.now = 1000.0
        self.counted = Counter()
        self.complaints = Complaints("g", lambda name: self.counted.update([name]), lambda: self.now)

    def failed(self, error, *places):
        self.complaints.failed(dict.fromkeys(places or (ORDERS,), error))

    def heard(self):
        """Warnings since it was last asked."""
        found = [record.getMessage() for record in self._log.records if record.levelno >= logging.WARNING]
        self._log.clear()
        return found


@pytest.fixture
def group(caplog):
    return Group(caplog)


@pytest.mark.parametrize(
    ("error", "words"),
    [(GROUP, "right to Read the group"), (TOPIC, "right to Read the topics"), (LONG, "offset.metadata.max.bytes")],
)
def test_a_refusal_is_told_at_once_and_says_what_to_do(group, error, words):
    group.failed(error, ORDERS, ("nc.orders", 1), JOBS)
    (text,) = group.heard()
    assert "commits of g on nc.jobs, nc.orders fail" in text
    assert words in text
    assert error.str() in text


def test_the_same_is_told_again_only_now_and_then(group):
    for _ in range(241):
        group.failed(LONG)
        group.now += 0.5
    assert len(group.heard()) == 3
    assert group.counted == {"commits_failed": 241, "commits_refused": 241}


def test_something_else_is_told_though_the_first_still_is(group):
    group.failed(GROUP)
    group.failed(TOPIC)
    assert len(group.heard()) == 2


def test_that_it_works_is_told_once_when_all_of_it_does(group):
    group.failed(LONG, ORDERS, JOBS)
    group.heard()
    group.complaints.worked(ORDERS)
    assert group.heard() == []
    group.complaints.worked(JOBS)
    group.complaints.worked(JOBS)
    assert group.heard() == ["commits of g are taken again"]
    group.failed(LONG)
    assert len(group.heard()) == 1, "it is news again"


def test_what_passes_is_no_news(group):
    group.failed(BUSY)
    group.now += 29
    group.failed(BUSY)
    group.complaints.worked(ORDERS)
    group.now += 29
    group.failed(BUSY)
    assert group.heard() == []
    assert group.counted == {"commits_failed": 3}


def test_what_should_pass_and_does_not_is_told(group):
    group.failed(BUSY)
    group.now += 31
    group.failed(BUSY)
    (text,) = group.heard()
    assert "brokers' logs" in text
    assert group.counted["commits_refused"] == 0


def test_of_what_is_anothers_by_now_nothing_is_told(group):
    group.failed(LONG, ORDERS, JOBS)
    group.heard()
    group.complaints.gone(ORDERS)
    group.complaints.worked(ORDERS)
    assert group.heard() == []


@pytest.mark.timeout(120)
async def test_a_group_whose_commits_brokers_refuse_is_told_of_and_goes_on_when_they_take_them(start_kafka, caplog):
    kafka = start_kafka(options={"offset.metadata.max.bytes": "8"})
    got: asyncio.Queue[str] = asyncio.Queue()

    def heard(text):
        found = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
        return [each for each in found if "commits of g" in each and text in each]

    async with MessageBus(f"kafka://{kafka.bootstrap}/c{token_hex(4)}?lease=6&partitions=1") as bus:
        await bus.publish("orders", "tea")
        bus.subscribe("orders", lambda message: got.put_nowait(message.payload), group="g")
        await eventually(lambda: heard("offset.metadata.max.bytes of the brokers"), "a warning", 20.0)
        await eventually(lambda: bus.metrics().transport.get("commits_refused", 0) > 5, "that it is tried on", 20.0)
        assert len(heard("")) == 1
        assert got.empty()
        kafka.brokers[0].options["offset.metadata.max.bytes"] = "4096"
        await asyncio.to_thread(kafka.restart)
        assert await asyncio.wait_for(got.get(), 30.0) == "tea"
        assert heard("taken again")
