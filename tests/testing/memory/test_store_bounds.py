"""Capacity, retention, deduplication, delays, inboxes, and looking in."""

import pytest

from neuralcore.messaging.channel import Retention
from neuralcore.messaging.transport import Outcome, Settlement


def statuses(bench, count, **fields):
    return [bench.publish(**fields).value for _ in range(count)]


# Capacity


@pytest.mark.parametrize(("overflow", "expected"), [("block", "full"), ("reject", "refused"), ("drop_new", "dropped")])
def test_a_full_channel_refuses_by_its_policy(bench, overflow, expected):
    bench.declare("jobs", capacity=2, overflow=overflow)
    member = bench.join("jobs")
    assert statuses(bench, 3) == ["stored", "stored", expected]
    bench.ack(*member.fetch(1))
    assert statuses(bench, 1) == ["stored"]
    assert bench.stats().depth == 2


def test_drop_old_drops_the_least_urgent_and_of_those_the_oldest(bench):
    bench.declare("jobs", capacity=3, overflow="drop_old")
    member = bench.join("jobs")
    for body, priority in ((b"n1", 50), (b"low1", 75), (b"low2", 75)):
        bench.publish(body=body, priority=priority)
    assert bench.publish(body=b"n2").value == "stored"
    assert member.bodies() == [b"n1", b"n2", b"low2"]


def test_what_is_in_flight_or_delayed_keeps_its_slot(bench):
    bench.declare("jobs", capacity=2, overflow="drop_old")
    member = bench.join("jobs")
    bench.publish(body=b"flying")
    member.fetch()
    bench.publish(body=b"delayed", delay_ns=10**9)
    assert bench.publish(body=b"new").value == "dropped"
    bench.pass_time(1)
    assert bench.publish(body=b"newer").value == "stored"
    assert member.bodies() == [b"newer"]


def test_a_retried_message_keeps_its_slot(bench):
    bench.declare("jobs", capacity=1)
    member = bench.join("jobs")
    bench.publish()
    bench.nack(*member.fetch(), delay=1)
    assert statuses(bench, 1) == ["full"]


def test_without_subscribers_messages_wait_up_to_the_capacity(bench):
    bench.declare("jobs", capacity=2, overflow="drop_old")
    for body in (b"1", b"2", b"3"):
        assert bench.publish(body=body).value == "stored"
    assert bench.join("jobs").bodies() == [b"2", b"3"]


def test_what_broadcasts_have_settled_needs_no_slot(bench):
    bench.declare("jobs", capacity=1)
    member = bench.join("jobs", group=None)
    for _ in range(5):
        assert bench.publish().value == "stored"
        bench.ack(*member.fetch())


def test_a_refused_publish_may_be_repeated(bench):
    bench.declare("jobs", capacity=1)
    member = bench.join("jobs")
    bench.publish()
    envelope = bench.envelope(id="x")
    assert bench.store.publish(envelope, bench.now).value == "full"
    bench.ack(*member.fetch())
    assert bench.store.publish(envelope, bench.now).value == "stored"


def test_a_channel_is_changed_live(bench):
    bench.declare("jobs", capacity=1)
    bench.publish()
    bench.declare("jobs", capacity=2, overflow="reject")
    assert statuses(bench, 2) == ["stored", "refused"]


# Retention


def test_what_every_group_has_settled_is_forgotten_without_a_retention(bench):
    g, h = bench.join("jobs"), bench.join("jobs", group="h")
    bench.publish()
    bench.ack(*g.fetch())
    assert bench.stats().stored == 1
    bench.ack(*h.fetch())
    assert bench.stats().stored == 0


@pytest.mark.parametrize(
    ("retention", "kept"),
    [
        (Retention(count=2), [b"aa3", b"aa4"]),
        (Retention(bytes=8), [b"aa3", b"aa4"]),
        (Retention(age=2.5), [b"aa3", b"aa4"]),
    ],
)
def test_retention_keeps_settled_messages(bench, retention, kept):
    bench.declare("jobs", retention=retention)
    member = bench.join("jobs")
    for number in range(5):
        bench.publish(body=b"aa%d" % number)
        bench.pass_time(1)
    assert len(bench.browse()) == 5
    bench.ack(*member.fetch())
    assert bench.browse() == kept


def test_retention_never_takes_what_a_group_has_not_settled(bench):
    bench.declare("jobs", retention=Retention(count=1, age=1))
    member = bench.join("jobs")
    for _ in range(10):
        bench.publish()
    bench.pass_time(100)
    assert len(member.fetch()) == 10


def test_retention_bounds_what_nobody_wants_yet(bench):
    bench.declare("jobs", retention=Retention(count=2))
    for body in (b"1", b"2", b"3"):
        bench.publish(body=body)
    assert bench.join("jobs").bodies() == [b"2", b"3"]


def test_dead_letters_stay_until_somebody_takes_them(bench):
    bench.publish("_dlq.jobs", b"letter")
    bench.pass_time(10**6)
    assert bench.browse("_dlq.jobs") == [b"letter"]


# Deduplication


def test_a_duplicate_is_stored_once_inside_the_window(bench):
    member = bench.join("jobs")
    assert [bench.publish(id="x").value, bench.publish(id="x").value] == ["stored", "duplicate"]
    bench.ack(*member.fetch())
    bench.pass_time(299)
    assert bench.publish(id="x").value == "duplicate"
    bench.pass_time(1)
    assert bench.publish(id="x").value == "stored"


def test_the_idempotency_key_goes_before_the_id(bench):
    assert [
        bench.publish(id="1", dedup_key="k").value,
        bench.publish(id="2", dedup_key="k").value,
        bench.publish(id="1").value,
        bench.publish("other", id="3", dedup_key="k").value,
    ] == ["stored", "duplicate", "stored", "stored"]


def test_replays_are_never_suppressed(bench):
    assert [bench.publish(id="x", replay=n).value for n in (0, 1, 2, 2)] == ["stored", "stored", "stored", "duplicate"]


def test_a_channels_own_window(bench):
    bench.declare("jobs", dedup_window=1)
    bench.publish(id="x")
    bench.pass_time(1)
    assert bench.publish(id="x").value == "stored"


def test_one_commit_may_hold_a_duplicate_of_itself(bench):
    envelope = bench.envelope(id="x")
    assert [s.value for s in bench.commit([envelope, envelope], []).published] == ["stored", "duplicate"]


# Delays


def test_delay_and_not_before_each_on_its_own_clock(bench):
    member = bench.join("jobs")
    bench.publish(body=b"delay", delay_ns=10 * 10**9)
    bench.publish(body=b"wall", not_before_ns=bench.now.wall + 20 * 10**9)
    assert bench.next_event() == 10
    bench.jump_wall(20)
    assert member.bodies() == [b"wall"]
    bench.pass_time(10)
    assert member.bodies() == [b"delay"]


def test_a_message_with_both_waits_for_both(bench):
    member = bench.join("jobs")
    bench.publish(delay_ns=10 * 10**9, not_before_ns=bench.now.wall + 20 * 10**9)
    bench.pass_time(10)
    assert member.fetch() == []
    assert bench.next_event() == 10
    bench.pass_time(10)
    assert len(member.fetch()) == 1


def test_a_delayed_message_is_delayed_for_a_group_that_comes_later_too(bench):
    bench.publish(delay_ns=10 * 10**9)
    bench.pass_time(4)
    member = bench.join("jobs")
    assert member.fetch() == []
    bench.pass_time(6)
    assert len(member.fetch()) == 1


# Inboxes


def test_a_reply_arrives_in_its_inbox_and_nowhere_else(bench):
    address = bench.store.open_inbox(bench.owner("A"))
    bench.join(">")
    assert bench.publish(address, b"answer").value == "stored"
    assert [e.body for e in bench.store.take_replies(address, bench.now)] == [b"answer"]
    assert bench.store.take_replies(address, bench.now) == []
    assert bench.store.channels() == []


def test_a_reply_to_a_forgotten_inbox_is_dropped(bench):
    address = bench.store.open_inbox(bench.owner("A"))
    bench.store.close_inbox(address)
    assert bench.publish(address).value == "dropped"


def test_an_inbox_outlives_its_silent_owner_for_a_while(make_bench):
    bench = make_bench(session_ttl=30)
    address = bench.store.open_inbox(bench.owner("A"))
    bench.die("A")
    bench.pass_time(29)
    assert bench.publish(address).value == "stored"
    bench.pass_time(1)
    assert bench.publish(address).value == "dropped"
    assert bench.store.take_replies(address, bench.now) is None


def test_an_inbox_is_bounded(make_bench):
    bench = make_bench(inbox_capacity=1)
    address = bench.store.open_inbox(bench.owner("A"))
    assert statuses(bench, 2, channel=address) == ["stored", "dropped"]


# Looking in


def test_browse_reads_in_pages_and_settles_nothing(bench):
    member = bench.join("jobs")
    for body in (b"1", b"2", b"3", b"4", b"5"):
        bench.publish(body=body)
    pages, cursor = [], "beginning"
    while cursor is not None:
        page = bench.store.browse("jobs", cursor, 2, bench.now)
        pages.append([e.body for e in page.envelopes])
        cursor = page.next
        bench.ack(*member.fetch(2))
    assert pages == [[b"1", b"2"], [b"3", b"4"], [b"5"]]


def test_browse_of_a_channel_that_is_not_there_is_empty(bench):
    assert bench.browse("nowhere") == []


def test_an_invalid_name_is_refused_with_its_reason_and_stops_nothing_else(bench):
    member = bench.join("jobs")
    bench.publish()
    (delivery,) = member.fetch()
    result = bench.commit([bench.envelope("a..b"), bench.envelope()], [Settlement(delivery, Outcome.ACK)])
    assert [s.value for s in (*result.published, *result.settled)] == ["refused", "stored", "settled"]
    assert "empty token" in result.reasons[0]
