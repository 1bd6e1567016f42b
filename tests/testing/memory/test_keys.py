"""Messages of one key, one at a time and in order, across all members of a group."""


def test_one_message_of_a_key_at_a_time_across_two_members(bench):
    a, b = bench.join("jobs"), bench.join("jobs", client="B")
    for body in (b"1", b"2", b"3"):
        bench.publish(body=body, key="k")
    bench.publish(body=b"free")
    (first, free) = a.fetch()
    assert [first.envelope.body, free.envelope.body] == [b"1", b"free"]
    assert b.bodies() == []
    bench.ack(first)
    assert b.bodies() == [b"2"]
    assert a.bodies() == []


def test_acking_wakes_the_member_that_waits_for_the_key(bench):
    a, b = bench.join("jobs"), bench.join("jobs", client="B")
    bench.publish(key="k")
    bench.publish(key="k")
    (first,) = a.fetch()
    assert b.fetch() == []
    b.wakes = 0
    bench.ack(first)
    assert b.wakes == 1


def test_different_keys_run_side_by_side(bench):
    member = bench.join("jobs")
    for body, key in ((b"a1", "a"), (b"b1", "b"), (b"a2", "a"), (b"b2", "b")):
        bench.publish(body=body, key=key)
    assert member.bodies() == [b"a1", b"b1"]


def test_two_groups_do_not_share_a_key(bench):
    g, h = bench.join("jobs"), bench.join("jobs", group="h", client="B")
    bench.publish(body=b"1", key="k")
    assert g.bodies() == h.bodies() == [b"1"]


def test_a_keyed_message_that_fails_holds_its_place_and_its_key_waits(bench):
    member = bench.join("jobs")
    for body in (b"1", b"2"):
        bench.publish(body=body, key="k")
    bench.publish(body=b"other", key="o")
    first, other = member.fetch()
    bench.nack(first, delay=5)
    bench.ack(other)
    assert member.bodies() == []
    bench.pass_time(5)
    (again,) = member.fetch()
    assert (again.envelope.body, again.attempt) == (b"1", 2)
    bench.ack(again)
    assert member.bodies() == [b"2"]


def test_by_policy_the_key_passes_a_failed_message(bench):
    member = bench.join("jobs")
    for body in (b"1", b"2"):
        bench.publish(body=body, key="k")
    bench.nack(*member.fetch(), delay=5, pass_key=True)
    (second,) = member.fetch()
    assert second.envelope.body == b"2"
    bench.pass_time(5)
    assert member.bodies() == []
    bench.ack(second)
    assert member.bodies() == [b"1"]


def test_a_released_or_suspect_message_keeps_its_place_in_its_key(bench):
    a, b = bench.join("jobs"), bench.join("jobs", client="B")
    for body in (b"1", b"2", b"3"):
        bench.publish(body=body, key="k")
    bench.release(*a.fetch())
    (first,) = a.fetch()
    assert first.envelope.body == b"1"
    bench.die("A")
    bench.pass_time(10)
    for expected in (b"1", b"2", b"3"):
        (delivery,) = b.fetch()
        assert delivery.envelope.body == expected
        bench.ack(delivery)


def test_inside_a_key_the_more_urgent_message_is_next(bench):
    member = bench.join("jobs")
    bench.publish(body=b"1", key="k")
    (first,) = member.fetch()
    bench.publish(body=b"2", key="k", priority=50)
    bench.publish(body=b"urgent", key="k", priority=0)
    assert member.fetch() == []
    bench.ack(first)
    (second,) = member.fetch()
    assert second.envelope.body == b"urgent"
    bench.ack(second)
    assert member.bodies() == [b"2"]


def test_when_one_is_dropped_whose_turn_it_was_the_next_one_has_the_key(bench):
    bench.declare("jobs", capacity=3, overflow="drop_old")
    member = bench.join("jobs")
    for body in (b"1", b"2", b"3"):
        bench.publish(body=body, key="k")
    bench.ack(*member.fetch())
    for body in (b"4", b"5"):
        bench.publish(body=body)
    assert member.bodies() == [b"3", b"4", b"5"]
