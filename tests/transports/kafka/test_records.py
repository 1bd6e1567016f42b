"""Envelopes as records, and records of others."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralcore.messaging.transport import Envelope
from neuralcore_transports.kafka.records import dedup_id, due_in, envelope_of, headers_of, opened
from tests.transports.kafka.fakes import NOW_MS, NOW_NS, FakeRecord, record_of

SOURCE = "urn:neuralcore:bus:x"
SECOND = 10**9

texts = st.text(st.characters(codec="utf-8"))
names = st.one_of(
    texts,
    st.sampled_from(
        ["ce_x", "ce_id", "ce_time", "ce_ncreplay", "content-type", "data", "ncdue", "nc_header_ncdue", "nc_header_"]
    ),
)
times = st.integers(0, 253_402_300_799 * SECOND)
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
    dedup_key=st.none() | texts,
    replay=st.integers(0, 10**12),
)


def waits(record, now_ns: int) -> int:
    _, due_ns = opened(record, "orders")
    return due_in(record, due_ns, now_ns) if due_ns else 0


@given(envelopes)
def test_every_envelope_comes_back(envelope):
    assert envelope_of(record_of(envelope, 4), envelope.channel) == envelope


@given(envelopes, st.integers(1, 10**20), st.none() | st.integers(-5, 10**20))
def test_also_a_delayed_one(envelope, delay_ns, not_before_ns):
    delayed = msgspec.structs.replace(envelope, delay_ns=delay_ns, not_before_ns=not_before_ns)
    assert envelope_of(record_of(delayed, 4), envelope.channel) == envelope


@given(envelopes)
def test_no_header_is_written_twice(envelope):
    written = [name for name, _ in headers_of(envelope, SOURCE, NOW_NS)]
    assert len(set(written)) == len(written)


def test_how_it_looks():
    envelope = Envelope(
        id="m1",
        channel="orders",
        body=b"{}",
        priority=9,
        timestamp_ns=NOW_NS + 456_789,
        key="ada",
        correlation_id="c",
        reply_to="_inbox.x.3",
        expires_at_ns=NOW_NS,
        dedup_key="d",
        replay=2,
        delay_ns=SECOND,
        headers={"traceparent": "00-1", "ce_x": "1", "data": "2", "content-type": "3", "ncdue": "4"},
    )
    assert dict(headers_of(envelope, SOURCE, NOW_NS)) == {
        "ce_specversion": "1.0",
        "ce_id": "m1",
        "ce_source": SOURCE,
        "ce_type": "orders",
        "ce_time": "2026-03-04T05:06:07.123456789Z",
        "content-type": "application/json",
        "ce_partitionkey": "ada",
        "ce_ncpriority": "9",
        "ce_nccorrelationid": "c",
        "ce_ncreplyto": "_inbox.x.3",
        "ce_expirytime": "2026-03-04T05:06:07.123000000Z",
        "ce_ncdedupkey": "d",
        "ce_ncreplay": "2",
        "ncdue": str(NOW_MS + 1000),
        "traceparent": "00-1",
        "nc_header_ce_x": "1",
        "data": "2",
        "nc_header_content-type": "3",
        "nc_header_ncdue": "4",
    }


def test_what_goes_without_saying_is_not_said():
    plain = Envelope(id="m1", channel="orders", body=b"")
    written = [name for name, _ in headers_of(plain, SOURCE, NOW_NS)]
    assert written == ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "content-type"]


# When it is due


def due(envelope: Envelope, *, after_ms: int = 0) -> int:
    return waits(record_of(envelope, 4), NOW_NS + after_ms * 1_000_000)


def delayed(**what: int) -> Envelope:
    return Envelope(id="m", channel="orders", body=b"", **what)


def test_a_message_without_a_delay_is_due():
    assert due(delayed()) == 0


def test_a_delay_is_counted_from_when_it_was_published():
    assert due(delayed(delay_ns=2 * SECOND)) == 2 * SECOND
    assert due(delayed(delay_ns=2 * SECOND), after_ms=500) == 1_500_000_000
    assert due(delayed(delay_ns=2 * SECOND), after_ms=5000) == 0


def test_of_two_times_the_later_one_counts():
    assert due(delayed(delay_ns=SECOND, not_before_ns=NOW_NS + 2 * SECOND)) == 2 * SECOND
    assert due(delayed(delay_ns=3 * SECOND, not_before_ns=NOW_NS + 2 * SECOND)) == 3 * SECOND
    assert due(delayed(not_before_ns=NOW_NS - SECOND)) == 0


@given(st.integers(1, 10**15))
def test_nobody_gets_it_too_early(delay_ns):
    assert delay_ns <= due(delayed(delay_ns=delay_ns)) < delay_ns + 1_000_000


def test_a_reader_whose_clock_is_behind_waits_no_longer_than_the_delay_was():
    assert due(delayed(delay_ns=2 * SECOND), after_ms=-3_600_000) == 2 * SECOND


def test_without_a_time_of_storing_the_clock_alone_decides():
    record = FakeRecord(given=[("ncdue", str(NOW_MS + 5000).encode())], stored=(0, -1))
    assert waits(record, NOW_NS) == 5 * SECOND


def test_the_longest_delay_there_is_is_one():
    longest = 999_999_999 * 86_400 * SECOND
    assert due(delayed(delay_ns=longest)) == longest


@pytest.mark.parametrize("value", [b"", b"soon", b"-1", b"1.5", b"\xff", b"9" * 5000, "٣".encode(), None])
def test_a_due_time_that_is_none_keeps_nothing(value):
    assert waits(FakeRecord(given=[("ncdue", value)]), NOW_NS) == 0


# Which are one


def test_two_messages_are_one_by_their_ids_or_by_their_dedup_keys():
    def known(**what):
        return dedup_id(Envelope(**{"id": "1", "channel": "orders", "body": b"", **what}))

    assert known() == known(body=b"other")
    assert known() != known(id="2")
    assert known(dedup_key="d") == known(id="2", dedup_key="d")
    assert known(dedup_key="d") != known(dedup_key="e")
    assert len({known(), known(replay=1), known(replay=2)}) == 3, "replays are never duplicates"


def test_a_replay_is_never_taken_for_another_message():
    replay = Envelope(id="a", channel="orders", body=b"", replay=1)
    other = Envelope(id="a#1", channel="orders", body=b"")
    assert dedup_id(replay) != dedup_id(other)


# Of others


def read(*headers: tuple[str, bytes | None], body: bytes | None = b"x", key: bytes | None = None) -> Envelope:
    return envelope_of(FakeRecord(given=headers, data=body, by=key), "orders")


def test_a_record_without_headers_is_its_bytes():
    found = envelope_of(FakeRecord(data=b"\xff\x00"), "orders")
    assert found == Envelope(
        id="3-4", channel="orders", body=b"\xff\x00", content_type="application/octet-stream", timestamp_ns=NOW_NS
    )


def test_a_record_without_a_value_is_empty():
    assert read(body=None).body == b""


def test_a_record_of_another_producer_of_events():
    found = read(
        ("ce_specversion", b"1.0"),
        ("ce_id", b"7"),
        ("ce_source", b"/shop"),
        ("ce_type", b"order.created"),
        ("ce_time", b"2026-03-04T06:06:07+01:00"),
        ("ce_subject", b"x"),
        ("content-type", b"text/plain"),
        body=b"hello",
    )
    assert (found.id, found.channel, found.body, found.content_type) == ("7", "orders", b"hello", "text/plain")
    assert found.timestamp_ns == NOW_NS - 123_000_000
    assert found.headers == {"ce_subject": "x"}


def test_a_record_s_key_is_the_message_s():
    assert read(key=b"ada").key == "ada"
    assert read(key=b"").key == ""
    assert read().key is None
    assert read(("ce_partitionkey", b"bob"), key=b"ada").key == "bob"
    assert read(("ce_partitionkey", None), key=b"ada").key == "ada"


def test_an_event_without_a_time_was_made_when_it_was_stored():
    assert read(("ce_id", b"7")).timestamp_ns == NOW_NS
    assert envelope_of(FakeRecord(stored=(0, -1)), "orders").timestamp_ns == 0


def test_the_last_of_two_headers_of_one_name_counts():
    assert read(("ce_id", b"1"), ("ce_id", b"2")).id == "2"


BROKEN = {
    "id": ("ce_id", b"\xff"),
    "timestamp_ns": ("ce_time", b"yesterday"),
    "expires_at_ns": ("ce_expirytime", b"soon"),
    "key": ("ce_partitionkey", b"\xff"),
    "content_type": ("content-type", b"\xff"),
    "priority": ("ce_ncpriority", b"high"),
    "correlation_id": ("ce_nccorrelationid", b"\xff"),
    "reply_to": ("ce_ncreplyto", b"\xff"),
    "dedup_key": ("ce_ncdedupkey", b"\xff"),
    "replay": ("ce_ncreplay", b"once"),
    "headers": ("x", b"\xff"),
}


@pytest.mark.parametrize("attribute", BROKEN)
def test_what_is_not_as_it_must_be_is_left_for_its_reader_to_find(attribute):
    found = read(BROKEN[attribute])
    with pytest.raises(msgspec.ValidationError, match=attribute):
        msgspec.convert(msgspec.structs.asdict(found), Envelope)


@pytest.mark.parametrize("attribute", BROKEN)
def test_also_then_it_has_something_to_be_known_by(attribute):
    hash(dedup_id(read(BROKEN[attribute])))


@pytest.mark.parametrize("value", [b"9" * 18, b"9" * 5000, b"-1", b"+1", b" 1", b"1_0", b"", "٣".encode()])
@pytest.mark.parametrize("name", ["ce_ncpriority", "ce_ncreplay"])
def test_a_number_that_is_none_is_left_as_it_is(name, value):
    found = read((name, value))
    assert (found.priority if name == "ce_ncpriority" else found.replay) == value


@pytest.mark.parametrize("text", ["2026-03-04T05:06:07.1Z\x00", "1e999", "-1", "9" * 5000, "", "Z"])
def test_odd_times_are_no_errors(text):
    assert read(("ce_time", text.encode())).timestamp_ns == text


OWN = ["ce_id", "ce_time", "ce_partitionkey", "ce_ncpriority", "ce_ncreplay", "ce_expirytime", "ncdue", "content-type"]
foreign = st.builds(
    FakeRecord,
    at=st.integers(0, 2**63 - 1),
    data=st.none() | st.binary(),
    by=st.none() | st.binary(),
    given=st.none()
    | st.lists(
        st.tuples(
            st.text() | st.sampled_from(OWN),
            st.none() | st.binary() | st.integers(-(2**80), 2**80).map(lambda number: str(number).encode()),
        )
    ),
    stored=st.tuples(st.integers(0, 2), st.integers(-1, 2**63 - 1)),
)


@given(foreign, st.integers(0, 2**63))
def test_no_record_is_an_error(record, now_ns):
    hash(dedup_id(envelope_of(record, "orders")))
    assert waits(record, now_ns) >= 0
