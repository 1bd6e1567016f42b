"""What a fetch hands over, and in which order."""

from neuralcore.messaging.transport import Demand, Interest


def test_urgent_messages_first_and_first_in_first_out_inside_one_priority(bench):
    member = bench.join("jobs")
    for body, priority in ((b"n1", 50), (b"low", 75), (b"n2", 50), (b"now", 0), (b"n3", 50)):
        bench.publish(body=body, priority=priority)
    assert member.bodies() == [b"now", b"n1", b"n2", b"n3", b"low"]


def test_priority_is_strict_across_the_channels_of_a_pattern(bench):
    member = bench.join("a.*")
    bench.publish("a.x", b"1", priority=60)
    bench.publish("a.y", b"2", priority=40)
    bench.publish("a.x", b"3", priority=40)
    bench.publish("a.z", b"4", priority=10)
    assert member.bodies() == [b"4", b"2", b"3", b"1"]


def test_a_fetch_stays_within_its_demand(bench):
    member = bench.join("a", "b")
    for body in (b"a1", b"a2", b"a3"):
        bench.publish("a", body)
    for body in (b"b1", b"b2"):
        bench.publish("b", body)
    fetched = member.fetch_all({1: Demand(2), 2: Demand(0)})
    assert [d.envelope.body for d in fetched] == [b"a1", b"a2"]
    assert [d.envelope.body for d in member.fetch_all({2: Demand(5)})] == [b"b1", b"b2"]


def test_only_what_is_more_urgent_than_the_bound(bench):
    member = bench.join("jobs")
    for body, priority in ((b"50", 50), (b"49", 49), (b"51", 51), (b"10", 10)):
        bench.publish(body=body, priority=priority)
    assert member.bodies(more_urgent_than=50) == [b"10", b"49"]
    assert member.bodies() == [b"50", b"51"]


def test_the_most_specific_interest_of_a_group_answers(bench):
    member = bench.join(">", "a.>", "a.*", "a.b")
    for channel in ("a.b", "a.c", "a.b.c", "z"):
        bench.publish(channel, channel.encode())
    everything = dict.fromkeys(range(1, 5), Demand(10))
    answered = {d.envelope.channel: d.interest for d in member.fetch_all(everything)}
    assert answered == {"a.b": 4, "a.c": 3, "a.b.c": 2, "z": 1}


def test_a_paused_interest_does_not_hand_its_messages_to_a_wider_one(bench):
    member = bench.join("a.*", "a.b")
    bench.publish("a.b")
    assert member.fetch_all({1: Demand(10), 2: Demand(0)}) == []


def test_a_nacked_message_comes_back_behind_its_equals(bench):
    member = bench.join("jobs")
    for body in (b"1", b"2", b"3"):
        bench.publish(body=body)
    bench.publish(body=b"later", priority=60)
    first, *_ = member.fetch(1)
    bench.nack(first)
    assert member.bodies() == [b"2", b"3", b"1", b"later"]


def test_a_released_message_comes_back_before_its_equals(bench):
    member = bench.join("jobs")
    for body in (b"1", b"2", b"3"):
        bench.publish(body=body)
    bench.release(*member.fetch(2))
    assert member.bodies() == [b"1", b"2", b"3"]


def test_a_reader_is_woken_by_what_it_could_fetch(bench):
    member = bench.join("jobs")
    other = bench.join("else", group="h")
    bench.publish("jobs")
    assert (member.wakes, other.wakes) == (1, 0)


def test_update_replaces_the_interests(bench):
    member = bench.join("a")
    bench.publish("a", b"old")
    member.update(Interest(id=2, pattern="b"))
    bench.publish("b", b"new")
    assert [d.envelope.body for d in member.fetch_all({1: Demand(5), 2: Demand(5)})] == [b"new"]
    assert bench.stats("a").lag == {"g": 1}
