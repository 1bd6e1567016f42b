"""Groups, their positions, and broadcasts."""

from datetime import datetime, timezone

import pytest

from neuralcore.messaging.transport import ChannelRef, GroupRef, Interest


def test_members_of_a_group_share_and_all_groups_get_all(bench):
    a, b = bench.join("jobs"), bench.join("jobs", client="B")
    other = bench.join("jobs", group="h", client="C")
    for body in (b"1", b"2", b"3"):
        bench.publish(body=body)
    assert a.bodies(2) == [b"1", b"2"]
    assert b.bodies() == [b"3"]
    assert other.bodies() == [b"1", b"2", b"3"]


def test_the_first_group_starts_at_the_beginning_and_later_ones_at_new(bench):
    bench.publish(body=b"early")
    first = bench.join("jobs", group="first")
    late = bench.join("jobs", group="late")
    bench.publish(body=b"after")
    assert first.bodies() == [b"early", b"after"]
    assert late.bodies() == [b"after"]


def test_a_group_starts_where_it_is_told(bench):
    for body in (b"1", b"2", b"3"):
        bench.publish(body=body)
        bench.pass_time(1)
    bench.join("jobs", group="first")
    at = datetime.fromtimestamp((bench.now.wall - 2_000_000_000) / 1e9, timezone.utc)
    assert bench.join("jobs", group="all", start="beginning").bodies() == [b"1", b"2", b"3"]
    assert bench.join("jobs", group="id", start="m3").bodies() == [b"3"]
    assert bench.join("jobs", group="time", start=at).bodies() == [b"2", b"3"]
    assert bench.join("jobs", group="new", start="new").bodies() == []


def test_a_start_that_is_not_kept_is_an_error_and_joins_nothing(bench):
    bench.publish(id="known")
    with pytest.raises(ValueError, match="no message 'gone' is kept"):
        bench.join("jobs", start="gone")
    with pytest.raises(ValueError, match="needs a zone"):
        bench.join("jobs", start=datetime(2026, 1, 1))  # noqa: DTZ001
    assert bench.stats().lag == {}


def test_a_group_keeps_its_position_while_nobody_reads(bench):
    member = bench.join("jobs")
    bench.publish(body=b"1")
    bench.ack(*member.fetch())
    bench.leave("A")
    bench.publish(body=b"2")
    assert bench.join("jobs", client="B").bodies() == [b"2"]


def test_a_channel_created_after_a_pattern_is_picked_up_from_its_beginning(bench):
    group = bench.join("a.>")
    broadcast = bench.join("a.>", group=None, client="B")
    bench.publish("a.new.one", b"1")
    assert group.bodies() == [b"1"]
    assert broadcast.bodies() == [b"1"]


def test_a_leading_wildcard_never_matches_reserved_channels(bench):
    everything, letters = bench.join(">"), bench.join("_dlq.>", group="h")
    bench.publish("_dlq.jobs", b"dead")
    assert everything.bodies() == []
    assert letters.bodies() == [b"dead"]


def test_every_broadcast_gets_every_message_while_it_lives(bench):
    bench.publish(body=b"before")
    two = bench.join("jobs", "jobs", group=None)
    bench.publish(body=b"1")
    assert two.bodies(interest=1) == [b"1"]
    assert two.bodies(interest=2) == [b"1"]
    two.update(Interest(id=1, pattern="jobs"))
    bench.publish(body=b"2")
    assert two.bodies(interest=1) == [b"2"]
    assert two.bodies(interest=2) == []


def test_what_a_closed_broadcast_had_in_flight_may_still_be_settled(bench):
    bench.join("jobs", group="g")
    member = bench.join("jobs", group=None, client="B")
    bench.publish()
    bench.publish()
    one, two = member.fetch()
    member.close()
    assert [s.value for s in (*bench.ack(one), *bench.nack(two))] == ["settled", "settled"]
    assert bench.stats().in_flight == 0


def test_broadcasts_do_not_use_up_what_the_first_group_is_to_get(bench):
    monitor = bench.join(">", group=None)
    bench.publish(body=b"task")
    bench.ack(*monitor.fetch())
    assert bench.join("jobs", client="B").bodies() == [b"task"]


def test_a_silent_owner_loses_its_broadcasts_and_keeps_its_groups(make_bench):
    bench = make_bench(session_ttl=60)
    broadcast = bench.join("jobs", group=None)
    group = bench.join("jobs")
    bench.publish(body=b"1")
    bench.die("A")
    bench.pass_time(59)
    assert bench.store.is_open(broadcast.reader)
    bench.pass_time(1)
    assert not bench.store.is_open(broadcast.reader)
    bench.come_back("A")
    group.update(Interest(id=1, pattern="jobs"))
    broadcast.update(Interest(id=1, pattern="jobs"))
    bench.publish(body=b"2")
    assert group.bodies() == [b"1", b"2"]
    assert broadcast.bodies() == [b"2"]


def test_a_removed_group_starts_anew(bench):
    member = bench.join("jobs")
    bench.publish(body=b"1")
    (delivery,) = member.fetch()
    bench.publish(body=b"2")
    bench.store.remove(GroupRef("g"), bench.now)
    assert bench.owner("A").lost == [delivery]
    assert bench.ack(delivery)[0].value == "lease_lost"
    bench.publish(body=b"3")
    assert member.fetch() == []
    member.update(Interest(id=1, pattern="jobs"))
    assert member.bodies() == [b"3"]


def test_a_group_can_be_removed_from_one_channel(bench):
    member = bench.join("a", "b")
    bench.publish("a", b"a1")
    bench.publish("b", b"b1")
    bench.store.remove(GroupRef("g", "a"), bench.now)
    assert member.bodies(interest=1) == []
    assert member.bodies(interest=2) == [b"b1"]


def test_a_removed_channel_is_gone_with_its_messages_and_made_again_by_the_next(bench):
    member = bench.join("jobs")
    bench.publish(body=b"1")
    bench.store.remove(ChannelRef("jobs"), bench.now)
    assert bench.store.channels() == []
    assert member.fetch() == []
    bench.publish(body=b"2")
    assert member.bodies() == [b"2"]


def test_seek_reads_again_from_an_id_a_time_or_the_beginning(bench):
    bench.declare("jobs", retention=_keep_all())
    member = bench.join("jobs")
    for body in (b"1", b"2", b"3"):
        bench.publish(body=body, id=body.decode())
        bench.pass_time(1)
    bench.ack(*member.fetch())
    member.seek("2")
    assert member.bodies() == [b"2", b"3"]
    member.seek(datetime.fromtimestamp((bench.now.wall - 10**9) / 1e9, timezone.utc))
    assert member.bodies() == [b"3"]
    member.seek("beginning")
    assert member.bodies() == [b"1", b"2", b"3"]
    member.seek("new")
    assert member.bodies() == []
    bench.publish(body=b"4")
    assert member.bodies() == [b"4"]


def test_seek_takes_in_flight_messages_from_their_owners_and_forgets_attempts(bench):
    member = bench.join("jobs")
    bench.publish()
    bench.nack(*member.fetch())
    (second,) = member.fetch()
    assert second.attempt == 2
    member.seek("beginning")
    assert bench.owner("A").lost == [second]
    assert bench.ack(second)[0].value == "lease_lost"
    assert [d.attempt for d in member.fetch()] == [1]


def test_lag_counts_what_each_group_has_not_settled(bench):
    slow, fast = bench.join("jobs", group="slow"), bench.join("jobs", group="fast")
    for _ in range(3):
        bench.publish()
    bench.ack(*fast.fetch())
    slow.fetch(1)
    assert bench.stats().lag == {"slow": 3, "fast": 0}
    assert (bench.stats().depth, bench.stats().in_flight) == (3, 1)


def _keep_all():
    from neuralcore.messaging.channel import Retention

    return Retention(count=1000)
