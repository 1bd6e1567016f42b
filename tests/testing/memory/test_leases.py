"""Leases, attempts and suspects."""

import pytest

from neuralcore.messaging.transport import Outcome, Settlement


def test_a_lease_runs_out_one_lease_time_after_its_owner_died(bench):
    a, b = bench.join("jobs"), bench.join("jobs", client="B")
    bench.publish()
    a.fetch()
    bench.pass_time(600)
    assert b.fetch() == []
    bench.die("A")
    assert bench.next_event() == 10
    bench.pass_time(9.999)
    assert b.fetch() == []
    bench.pass_time(0.001)
    (delivery,) = b.fetch()
    assert (delivery.attempt, delivery.suspect) == (1, True)


def test_a_late_ack_is_harmless_and_counted(bench):
    a, b = bench.join("jobs"), bench.join("jobs", client="B")
    bench.publish()
    (mine,) = a.fetch()
    bench.die("A")
    bench.pass_time(10)
    (theirs,) = b.fetch()
    assert [s.value for s in bench.ack(mine)] == ["lease_lost"]
    assert bench.stats().rejected_settlements == 1
    assert bench.stats().in_flight == 1
    assert [s.value for s in bench.ack(theirs)] == ["settled"]
    assert bench.stats().depth == 0


def test_an_owner_that_comes_back_in_time_keeps_its_leases(bench):
    a = bench.join("jobs")
    bench.publish()
    (delivery,) = a.fetch()
    bench.die("A")
    bench.pass_time(9)
    bench.come_back("A")
    bench.pass_time(600)
    assert [s.value for s in bench.ack(delivery)] == ["settled"]


def test_an_owner_that_comes_back_late_is_told_what_it_lost(bench):
    a = bench.join("jobs")
    bench.publish()
    (delivery,) = a.fetch()
    bench.die("A")
    bench.pass_time(11)
    bench.come_back("A")
    assert bench.owner("A").lost == [delivery]


def test_no_lease_is_extended_beyond_max_hold(make_bench):
    bench = make_bench(max_hold=100)
    a = bench.join("jobs")
    bench.publish()
    (delivery,) = a.fetch()
    assert bench.next_event() == 100
    bench.pass_time(100)
    assert bench.owner("A").lost == [delivery]
    assert [d.suspect for d in a.fetch()] == [True]


def test_the_wall_clock_does_not_move_a_lease_or_a_delay(bench):
    a, b = bench.join("jobs"), bench.join("jobs", client="B")
    bench.publish()
    bench.publish(body=b"delayed", delay_ns=5 * 10**9)
    a.fetch()
    bench.jump_wall(7200)
    assert b.fetch() == []
    bench.jump_wall(-14400)
    bench.pass_time(5)
    assert b.bodies() == [b"delayed"]


def test_fetching_and_releasing_count_nothing_and_a_nack_counts_one(bench):
    member = bench.join("jobs")
    bench.publish()
    for _ in range(3):
        bench.release(*member.fetch())
    for attempt in (1, 2, 3):
        (delivery,) = member.fetch()
        assert delivery.attempt == attempt
        bench.nack(delivery)


def test_a_nack_waits_for_its_delay(bench):
    member = bench.join("jobs")
    bench.publish()
    bench.nack(*member.fetch(), delay=2.5)
    assert bench.next_event() == 2.5
    bench.pass_time(2.499)
    assert member.fetch() == []
    member.wakes = 0
    bench.pass_time(0.001)
    assert member.wakes == 1
    assert [d.attempt for d in member.fetch()] == [2]


def test_a_suspects_attempt_is_stored_before_and_counts_once(bench):
    a, b = bench.join("jobs"), bench.join("jobs", client="B")
    bench.publish()
    a.fetch()
    bench.die("A")
    bench.pass_time(10)
    (suspect,) = b.fetch()
    assert [s.value for s in bench.attempt(suspect)] == ["settled"]
    bench.nack(suspect)
    (again,) = b.fetch()
    assert (again.attempt, again.suspect) == (2, False)


def test_a_suspect_released_before_its_handler_ran_has_lost_nothing(bench):
    a, b = bench.join("jobs"), bench.join("jobs", client="B")
    bench.publish()
    a.fetch()
    bench.die("A")
    bench.pass_time(10)
    (suspect,) = b.fetch()
    bench.attempt(suspect)
    bench.release(suspect)
    (again,) = b.fetch()
    assert (again.attempt, again.suspect) == (1, True)


def test_a_poison_message_is_known_after_max_attempts_and_one_crashes_and_its_neighbours_lose_nothing(bench):
    max_attempts, crashes = 3, 0
    bench.publish(body=b"poison", priority=0)
    for _ in range(1000):
        bench.publish()
    while True:
        client = f"process {crashes}"
        member = bench.join("jobs", client=client)
        fetched = member.fetch()
        poison = fetched[0]
        assert len(fetched) == 1001
        assert poison.envelope.body == b"poison"
        if poison.attempt > max_attempts:
            break
        if poison.suspect:
            bench.attempt(poison)
        bench.die(client)
        bench.pass_time(10)
        crashes += 1
    assert crashes == max_attempts + 1
    assert {(d.attempt, d.suspect) for d in fetched[1:]} == {(1, True)}


def test_a_clean_end_gives_back_what_was_leased_untouched(bench):
    a, b = bench.join("jobs"), bench.join("jobs", client="B")
    bench.publish()
    a.fetch()
    bench.leave("A")
    assert [(d.attempt, d.suspect) for d in b.fetch()] == [(1, False)]


def test_a_settlement_with_a_foreign_lease_is_refused(bench):
    member = bench.join("jobs")
    bench.publish()
    (delivery,) = member.fetch()
    delivery.lease = "not a lease of this store"
    assert [s.value for s in bench.ack(delivery)] == ["lease_lost"]


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_delivery_is_settled_once(bench, outcome):
    member = bench.join("jobs")
    bench.publish()
    (delivery,) = member.fetch()
    bench.ack(delivery)
    assert [s.value for s in bench.settle(outcome, delivery)] == ["lease_lost"]


def test_dead_letter_and_ack_are_one_step(bench):
    member = bench.join("jobs")
    bench.publish()
    (delivery,) = member.fetch()
    letter = bench.envelope("_dlq.jobs", b"letter", id="letter")
    result = bench.commit([letter], [Settlement(delivery, Outcome.ACK, after=0)])
    assert [s.value for s in result.published] == ["stored"]
    assert [s.value for s in result.settled] == ["settled"]
    assert bench.browse("_dlq.jobs") == [b"letter"]
    assert bench.stats().depth == 0


def test_without_its_dead_letter_the_original_is_not_acked(bench):
    bench.declare("graveyard", capacity=1)
    bench.publish("graveyard")
    member = bench.join("jobs")
    bench.publish()
    (delivery,) = member.fetch()
    pair = [bench.envelope("graveyard", id="letter")], [Settlement(delivery, Outcome.ACK, after=0)]
    result = bench.commit(*pair)
    assert [s.value for s in (*result.published, *result.settled)] == ["full", "skipped"]
    undertaker = bench.join("graveyard", group="u", client="U")
    bench.ack(*undertaker.fetch())
    result = bench.commit(*pair)
    assert [s.value for s in (*result.published, *result.settled)] == ["stored", "settled"]
