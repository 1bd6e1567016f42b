"""When a client is replaced of which no broker is heard, without a broker."""

from __future__ import annotations

import time

from confluent_kafka import KafkaError, KafkaException

from neuralcore_transports.kafka.silence import Silence

NOBODY = KafkaException(KafkaError(KafkaError._TRANSPORT))
QUIET = 0.02


class Client:
    def __init__(self) -> None:
        self.asked = 0
        self.alone = False

    def list_topics(self, topic: str, timeout: float) -> None:
        self.asked += 1
        if self.alone:
            raise NOBODY


def a_silence(patience: float = 0.1) -> Silence:
    return Silence("a client", "registry", patience, quiet=QUIET)


def lasts_within(silence: Silence, client: Client, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if silence.lasts(client):
            return True
        time.sleep(0.001)
    return False


def test_a_broker_is_asked_after_some_time_without_a_word_of_any() -> None:
    silence, client = a_silence(), Client()
    assert not silence.lasts(client)
    assert client.asked == 0
    assert not lasts_within(silence, client, 4 * QUIET)
    assert 1 <= client.asked <= 4


def test_nobody_is_asked_while_brokers_say_something() -> None:
    silence, client = Silence("a client", "registry", 0.1, quiet=60.0), Client()
    silence._look = 0.0  # it was quiet for long
    silence.heard()
    assert not silence.lasts(client)
    assert client.asked == 0


def test_a_client_that_no_broker_answers_is_replaced_after_some_patience() -> None:
    silence, client = a_silence(), Client()
    client.alone = True
    began = time.monotonic()
    assert lasts_within(silence, client, 10)
    assert time.monotonic() - began >= QUIET + 0.1
    assert client.asked > 2


def test_one_answer_is_enough_to_go_on() -> None:
    silence, client = a_silence(), Client()
    client.alone = True
    assert not lasts_within(silence, client, 0.08)
    client.alone = False
    assert not lasts_within(silence, client, 2 * QUIET)
    client.alone = True
    began = time.monotonic()
    assert lasts_within(silence, client, 10)
    assert time.monotonic() - began >= 0.1


def test_each_further_client_in_an_outage_is_given_more_time() -> None:
    silence, client = a_silence(), Client()
    client.alone = True
    waited = []
    for _ in range(3):
        began = time.monotonic()
        assert lasts_within(silence, client, 10)
        waited.append(time.monotonic() - began)
    assert waited[1] >= 0.2
    assert waited[2] >= 0.4
    silence.heard()
    assert silence._patience == 0.1


def test_it_is_told(caplog) -> None:
    silence, client = a_silence(), Client()
    client.alone = True
    assert lasts_within(silence, client, 10)
    assert "a client has heard of no broker for 0 s" in caplog.text
    assert "another client takes its place" in caplog.text
