"""docs/wire-vectors.json is what both transports write, and what they read."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from neuralcore.messaging.remote.wire import to_message
from neuralcore.messaging.transport import Delivery, Envelope
from neuralcore_transports.cloudevents import read_time
from neuralcore_transports.kafka import records
from neuralcore_transports.redis import entries
from tests.transports.kafka.fakes import FakeRecord

CHANNEL = "orders.new"
ENTRY = "1790000000123-4"
VECTORS = json.loads((Path(__file__).parents[2] / "docs" / "wire-vectors.json").read_text(encoding="utf-8"))


def each(part: str, transport: str) -> Any:
    vectors = [pytest.param(vector, id=vector["name"]) for vector in VECTORS[part] if transport in vector]
    return pytest.mark.parametrize("vector", vectors)


def octets(value: Any) -> bytes | None:
    if isinstance(value, dict):
        return base64.b64decode(value["base64"])
    return None if value is None else str(value).encode()


def envelope(message: dict[str, Any]) -> Envelope:
    attributes = dict(message)
    times = {"time": "timestamp_ns", "expires": "expires_at_ns"}
    times_ns = {times[name]: read_time(attributes.pop(name)) for name in times if name in attributes}
    return Envelope(body=octets(attributes.pop("body")) or b"", **times_ns, **attributes)


def fields(vector: Any) -> list[bytes | None]:
    return [octets(part) for pair in vector["redis"]["fields"] for part in pair]


def headers(vector: Any) -> list[tuple[str, bytes | None]] | None:
    given = vector["kafka"]["headers"]
    return None if given is None else [(name, octets(value)) for name, value in given]


def read_entry(vector: Any, channel: str = CHANNEL) -> Envelope:
    redis = vector["redis"]
    return entries.envelope_of(channel, redis["priority"], redis.get("entry", ENTRY), fields(vector))  # type: ignore[arg-type]


def read_record(vector: Any, channel: str = CHANNEL) -> Envelope:
    kafka = vector["kafka"]
    record = FakeRecord(
        kafka.get("offset", 4),
        octets(kafka["value"]),
        octets(kafka["key"]),
        headers(vector),
        (1, kafka.get("time_ms", 1)),
    )
    return records.envelope_of(record, channel)


def is_message(envelope: Envelope) -> bool:
    try:
        to_message(Delivery(envelope=envelope, interest=1, attempt=1))
    except (TypeError, ValueError):
        return False
    return True


def check_foreign(found: Envelope, message: dict[str, Any] | None) -> None:
    assert is_message(found) is (message is not None)
    if message is not None:
        assert found == envelope(message)


@each("messages", "redis")
def test_what_is_written_to_redis(vector: Any) -> None:
    written = entries.fields_of(envelope(vector["message"]), VECTORS["source"])
    assert [part.encode() if isinstance(part, str) else part for part in written] == fields(vector)


@each("messages", "redis")
def test_what_is_read_from_redis(vector: Any) -> None:
    message = {name: value for name, value in vector["message"].items() if name not in ("dedup_key", "replay")}
    assert read_entry(vector, message["channel"]) == envelope(message)


@each("messages", "kafka")
def test_what_is_written_to_kafka(vector: Any) -> None:
    message = envelope(vector["message"])
    written = records.headers_of(message, VECTORS["source"], now_ns=0)
    assert [(name, value.encode() if isinstance(value, str) else value) for name, value in written] == headers(vector)
    assert message.body == octets(vector["kafka"]["value"])
    assert message.key == vector["kafka"]["key"]


@each("messages", "kafka")
def test_what_is_read_from_kafka(vector: Any) -> None:
    assert read_record(vector, vector["message"]["channel"]) == envelope(vector["message"])


@each("foreign", "redis")
def test_an_entry_of_somebody_else(vector: Any) -> None:
    check_foreign(read_entry(vector), vector["message"])


@each("foreign", "kafka")
def test_a_record_of_somebody_else(vector: Any) -> None:
    check_foreign(read_record(vector), vector["message"])
