"""Names of headers and times, as CloudEvents has them."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralcore_transports.cloudevents import ATTRIBUTES, header_name, plain_name, read_time, written_time

SECOND = 10**9
LAST = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone.utc).timestamp()) * SECOND + SECOND - 1
MOMENT = int(datetime(2026, 3, 4, 5, 6, 7, tzinfo=timezone.utc).timestamp()) * SECOND

RESERVED = ["data", "ncdue"]
awkward = st.sampled_from(
    ["ce_id", "ce_x", "ce_", "content-type", "nc_header_", "nc_header_ce_x", "nc_header_nc_header_x", *RESERVED]
)


@given(st.one_of(awkward, st.text()))
def test_every_header_s_name_comes_back(name):
    assert plain_name(header_name(name, RESERVED)) == name


@given(st.one_of(awkward, st.text()), st.one_of(awkward, st.text()))
def test_two_names_are_never_written_as_one(one, other):
    assert (one == other) == (header_name(one, RESERVED) == header_name(other, RESERVED))


@given(st.one_of(awkward, st.text()))
def test_no_header_is_taken_for_something_else(name):
    written = header_name(name, RESERVED)
    assert written not in RESERVED
    assert written.encode(errors="surrogatepass") not in ATTRIBUTES
    assert not written.startswith("ce_")


@pytest.mark.parametrize("name", ["traceparent", "tracestate", "baggage", "x", "", "Content-Type", "CE_ID"])
def test_other_names_stay_as_they_are(name):
    assert header_name(name, RESERVED) == name


@given(st.integers(0, LAST))
def test_a_time_comes_back_to_the_nanosecond(ns):
    assert read_time(written_time(ns)) == ns


@given(st.integers(-62_135_596_800, -1))
def test_also_before_1970(seconds):
    assert read_time(written_time(seconds * SECOND + 5)) == seconds * SECOND + 5


@pytest.mark.parametrize(
    ("ns", "text"), [(10**30, "9999-12-31T23:59:59.999999999Z"), (-(10**30), "0001-01-01T00:00:00.000000000Z")]
)
def test_a_time_that_cannot_be_said_is_the_nearest_one(ns, text):
    assert written_time(ns) == text


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2026-03-04T05:06:07Z", 0),
        ("2026-03-04T05:06:07z", 0),
        ("2026-03-04t05:06:07Z", 0),
        ("2026-03-04T05:06:07.5Z", SECOND // 2),
        ("2026-03-04T05:06:07.123Z", 123_000_000),
        ("2026-03-04T05:06:07.123456Z", 123_456_000),
        ("2026-03-04T05:06:07.123456789Z", 123_456_789),
        ("2026-03-04T05:06:07.1234567891234Z", 123_456_789),
        ("2026-03-04T05:06:07.000000001Z", 1),
        ("2026-03-04T06:06:07+01:00", 0),
        ("2026-03-03T23:36:07-05:30", 0),
        ("2026-03-04T05:06:07+00:00", 0),
        ("2026-03-04T05:06:07-00:00", 0),
    ],
)
def test_times_that_others_write(text, ns):
    assert read_time(text) == MOMENT + ns


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "2026-03-04", "2026-03-04T05:06:07", "2026-03-04 05:06:07Z", "2026-03-04T05:06Z",
        "2026-13-04T05:06:07Z", "2026-02-30T05:06:07Z", "2026-03-04T25:06:07Z", "2026-03-04T05:06:07.Z",
        "2026-03-04T05:06:07+25:00", "2026-03-04T05:06:07+0100", "0000-03-04T05:06:07Z", "1772600767",
        " 2026-03-04T05:06:07Z", "2026-03-04T05:06:07Z\n", "20२६-03-04T05:06:07Z", b"2026-03-04T05:06:07Z", None, 5,
    ],
)  # fmt: skip
def test_what_is_no_time_stays_what_it_is(text):
    assert read_time(text) is text


@given(st.text())
def test_no_text_is_an_error(text):
    found = read_time(text)
    assert found == text or isinstance(found, int)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2016-12-31T23:59:60Z"])
def test_times_at_the_edges_are_no_errors(text):
    found = read_time(text)
    assert found == text or isinstance(found, int)
