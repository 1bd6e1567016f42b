"""When a client's place is taken, of which brokers say nothing any more; without a broker."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import KafkaError, KafkaException

from neuralcore_transports.kafka import silence as module
from neuralcore_transports.kafka.silence import Silence

NOBODY = KafkaException(KafkaError(KafkaError._TRANSPORT))
QUIET = 0.02
PATIENCE = 0.1


class Client:
    def __init__(self, *, alone: bool = False) -> None:
        self.asked = 0
        self.alone = alone

    def list_topics(self, topic: str, timeout: float) -> None:
        self.asked += 1
        if self.alone:
            raise NOBODY


class Bench:
    """A client, and those that it is compared with."""

    def __init__(self) -> None:
        self.client = Client()
        self.outage = False
        self.others: list[Client] = []
        self.silence = Silence("a client", self._another, PATIENCE, quiet=QUIET)

    def _another(self) -> Client:
        self.others.append(Client(alone=self.outage))
        return self.others[-1]

    def lasts_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.silence.lasts(self.client):
                return True
            time.sleep(0.001)
        return False


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_broker_is_asked_after_some_time_without_a_word_of_any(bench: Bench) -> None:
    assert not bench.silence.lasts(bench.client)
    assert bench.client.asked == 0
    assert not bench.lasts_within(4 * QUIET)
    assert 1 <= bench.client.asked <= 4
    assert not bench.others


def test_nobody_is_asked_while_brokers_say_something(bench: Bench) -> None:
    time.sleep(QUIET)
    bench.silence.heard()
    assert not bench.silence.lasts(bench.client)
    assert bench.client.asked == 0


def test_a_clients_place_is_taken_when_another_one_is_answered_for_some_time(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.client.alone = True
    began = time.monotonic()
    assert bench.lasts_within(10)
    assert time.monotonic() - began >= QUIET + PATIENCE
    assert len(bench.others) == 1
    assert "a client has lost all brokers, another client takes its place" in caplog.text


def test_in_an_outage_nobodys_place_is_taken(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those it is compared with may have lost the brokers too, and are replaced."""
    monkeypatch.setattr(module, "_FRESH", 0.05)
    bench.client.alone = bench.outage = True
    assert not bench.lasts_within(4 * PATIENCE)
    assert len(bench.others) > 2
    bench.outage = False
    assert bench.lasts_within(10)


def test_as_an_outage_ends_it_has_time_to_find_a_broker(bench: Bench) -> None:
    bench.client.alone = bench.outage = True
    assert not bench.lasts_within(PATIENCE)
    for other in bench.others:
        other.alone = False
    assert not bench.lasts_within(PATIENCE - QUIET)
    bench.client.alone = False
    assert not bench.lasts_within(2 * PATIENCE)


def test_one_answer_is_enough_to_go_on(bench: Bench) -> None:
    bench.client.alone = True
    assert not bench.lasts_within(PATIENCE)
    bench.client.alone = False
    assert not bench.lasts_within(2 * QUIET)
    bench.client.alone = True
    began = time.monotonic()
    assert bench.lasts_within(10)
    assert time.monotonic() - began >= PATIENCE
