"""Envelopes as fields of entries, and entries of others."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralcore.messaging.transport import Envelope
from neuralcore_transports.redis.entries import envelope_of, fields_of

SOURCE = "urn:neuralcore:bus:x"
STORED = "1772600767123-4"
STORED_NS = 1_772_600_767_123 * 1_000_000

texts = st.text(st.characters(codec="utf-8"))
names = st.one_of(
    texts,
    st.sampled_from(
        ["ce_x", "ce_id", "ce_time", "content-type", "data", "ncdue", "nc_header_data", "nc_header_", "traceparent"]
    ),
)
times = st.integers(0, 253_402_300_799 * 10**9)
envelopes = st.builds(
    Envelope,
    id=texts,
    channel=st.sampled_from(["orders", "_dlq.orders", "a.b.c"]),
    body=st.binary(),
    content_type=texts,
    priority=st.integers(0, 255),
    timestamp_ns=times,
    headers=st.dictionaries(names, texts),
    key=st.none() | texts,
    correlation_id=st.none() | texts,
    reply_to=st.none() | texts,
    expires_at_ns=st.none() | times,
)


def stored(envelope: Envelope, *first: str | bytes) -> list[bytes]:
    """As the server gives it back."""
    fields = [*first, *fields_of(envelope, SOURCE)]
    return [each.encode() if isinstance(each, str) else each for each in fields]


@given(envelopes)
def test_every_envelope_comes_back(envelope):
    assert envelope_of(envelope.channel, envelope.priority, STORED, stored(envelope)) == envelope


@given(envelopes)
def test_also_a_delayed_one(envelope):
    found = envelope_of(envelope.channel, envelope.priority, STORED, stored(envelope, "ncdue", "17726007671234"))
    assert found == envelope


@given(envelopes)
def test_no_field_is_written_twice(envelope):
    fields = stored(envelope)
    assert len(set(fields[::2])) == len(fields) // 2


def test_how_it_looks():
    envelope = Envelope(
        id="m1",
        channel="orders",
        body=b"{}",
        timestamp_ns=STORED_NS + 456_789,
        key="ada",
        correlation_id="c",
        reply_to="_inbox.x",
        expires_at_ns=STORED_NS,
        headers={"traceparent": "00-1", "ce_x": "1", "data": "2", "content-type": "3", "ncdue": "4"},
    )
    fields = fields_of(envelope, SOURCE)
    assert dict(zip(fields[::2], fields[1::2], strict=True)) == {
        "ce_specversion": "1.0",
        "ce_id": "m1",
        "ce_source": SOURCE,
        "ce_type": "orders",
        "ce_time": "2026-03-04T05:06:07.123456789Z",
        "content-type": "application/json",
        "ce_partitionkey": "ada",
        "ce_nccorrelationid": "c",
        "ce_ncreplyto": "_inbox.x",
        "ce_expirytime": "2026-03-04T05:06:07.123000000Z",
        "traceparent": "00-1",
        "nc_header_ce_x": "1",
        "nc_header_data": "2",
        "nc_header_content-type": "3",
        "nc_header_ncdue": "4",
        "data": b"{}",
    }


def read(*fields: str | bytes) -> Envelope:
    return envelope_of("orders", 50, STORED, [each.encode() if isinstance(each, str) else each for each in fields])


# Of others


def test_an_entry_of_data_alone_is_its_bytes():
    found = read("data", b"\xff\x00")
    assert found == Envelope(
        id=STORED, channel="orders", body=b"\xff\x00", content_type="application/octet-stream", timestamp_ns=STORED_NS
    )


def test_an_entry_of_fields_of_its_own_is_an_object():
    found = read("name", "Ada", "age", "36")
    assert (found.id, found.content_type, found.timestamp_ns) == (STORED, "application/json", STORED_NS)
    assert msgspec.json.decode(found.body) == {"name": "Ada", "age": "36"}


def test_an_entry_of_another_producer_of_events():
    found = read(
        "ce_specversion", "1.0", "ce_id", "7", "ce_source", "/shop", "ce_type", "order.created", "ce_time",
        "2026-03-04T06:06:07+01:00", "ce_subject", "x", "content-type", "text/plain", "data", "hello",
    )  # fmt: skip
    assert (found.id, found.body, found.content_type) == ("7", b"hello", "text/plain")
    assert found.timestamp_ns == STORED_NS - 123_000_000
    assert found.headers == {"ce_subject": "x"}


def test_an_event_without_a_time_was_made_when_it_was_stored():
    assert read("ce_id", "7", "data", "x").timestamp_ns == STORED_NS


def test_the_first_of_two_fields_of_one_name_or_the_last_but_no_error():
    assert read("data", "1", "data", "2").body in (b"1", b"2")


BROKEN = {
    "id": ("ce_id", b"\xff", "data", "x"),
    "body": ("ce_id", "7"),
    "timestamp_ns": ("ce_id", "7", "ce_time", "yesterday", "data", "x"),
    "expires_at_ns": ("ce_id", "7", "ce_expirytime", "soon", "data", "x"),
    "key": ("ce_id", "7", "ce_partitionkey", b"\xff", "data", "x"),
    "content_type": ("ce_id", "7", "content-type", b"\xff", "data", "x"),
    "correlation_id": ("ce_id", "7", "ce_nccorrelationid", b"\xff", "data", "x"),
    "reply_to": ("ce_id", "7", "ce_ncreplyto", b"\xff", "data", "x"),
    "headers": ("ce_id", "7", "x", b"\xff", "data", "x"),
}


@pytest.mark.parametrize("attribute", BROKEN)
def test_what_is_not_as_it_must_be_is_left_for_its_reader_to_find(attribute):
    found = read(*BROKEN[attribute])
    with pytest.raises(msgspec.ValidationError, match=attribute):
        msgspec.convert(msgspec.structs.asdict(found), Envelope)


@pytest.mark.parametrize("text", ["2026-03-04T05:06:07.1Z\x00", "1e999", "-1", "99999999999999999999", "", "Z"])
def test_odd_times_are_no_errors(text):
    assert read("ce_id", "7", "ce_time", text, "data", "x").timestamp_ns == text


@given(st.lists(st.tuples(st.binary() | st.sampled_from([b"ce_id", b"data", b"ce_time"]), st.binary()), min_size=1))
def test_no_entry_is_an_error(pairs):
    envelope_of("orders", 50, STORED, [part for pair in pairs for part in pair])
