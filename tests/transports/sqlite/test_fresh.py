"""What a commit hands out that it has stored itself, without reading it: to each once, and to nobody who has older."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing

import pytest

from neuralcore._core import Clock
from neuralcore.messaging.transport import Demand, Envelope, Interest, Outcome, PublishStatus, Settlement
from neuralcore_transports.sqlite.clock import StoreClock
from neuralcore_transports.sqlite.opening import connect, prepare
from neuralcore_transports.sqlite.options import SqliteOptions
from neuralcore_transports.sqlite.store.fetch import Ask, Reader
from neuralcore_transports.sqlite.store.moment import Limits, Moment
from neuralcore_transports.sqlite.store.store import Store
from neuralcore_transports.sqlite.store.transaction import Book

NOW = Moment(10**12, 10**18)


class Client:
    """A process with two consumers of one group on two channels."""

    def __init__(self, path, closing_them):
        self.path = path
        self.connection = closing_them.enter_context(closing(connect(path)))
        self.store = Store(Book(self.connection), Limits())
        owner = self.store.connect("one", "boot", NOW)
        self.readers = [Reader(owner, "g"), Reader(owner, "g")]
        for reader in self.readers:
            self.store.update(reader, [Interest(id=1, pattern="jobs.*")], NOW)

    def exchange(self, *ids, limits=(100,), bound=None, channel="jobs.a", acks=(), **fields):
        """The ids that each consumer got, and all deliveries."""
        envelopes = [Envelope(id=id, channel=channel, body=id.encode(), **fields) for id in ids]
        asks = [Ask(reader, {1: Demand(limit, bound)}) for reader, limit in zip(self.readers, limits, strict=False)]
        settlements = [Settlement(delivery, Outcome.ACK) for delivery in acks]
        result, fetched = self.store.exchange(envelopes, settlements, asks, NOW)
        assert set(result.published) <= {PublishStatus.STORED}
        self.deliveries = [delivery for each in fetched for delivery in each.deliveries]
        return [[delivery.envelope.id for delivery in each.deliveries] for each in fetched]

    def reads(self, *ids, **options):
        """The tables that an exchange reads, other than the counters."""
        statements = []
        self.connection.set_trace_callback(statements.append)
        try:
            self.exchange(*ids, **options)
        finally:
            self.connection.set_trace_callback(None)
        return [statement for statement in statements if "SELECT" in statement and "FROM nc_store" not in statement]


@pytest.fixture
def make(tmp_path):
    prepare(SqliteOptions(tmp_path / "bus.db"), StoreClock(Clock()))
    with ExitStack() as closing_them:
        yield lambda: Client(tmp_path / "bus.db", closing_them)


@pytest.fixture
def client(make):
    client = make()
    client.exchange("first")
    client.exchange(acks=client.deliveries)
    return client


def test_what_is_stored_is_handed_out_unread(client):
    assert client.reads("1", "2") == []
    assert [delivery.envelope.id for delivery in client.deliveries] == ["1", "2"]
    assert [delivery.envelope.body for delivery in client.deliveries] == [b"1", b"2"]


def test_as_it_is_when_it_is_read(client):
    fields = {
        "key": "k",
        "headers": {"a": "b"},
        "correlation_id": "c",
        "expires_at_ns": 7,
        "content_type": "text/plain",
    }
    client.exchange("1", **fields)
    (handed,) = client.deliveries
    client.store.commit((), [Settlement(handed, Outcome.RELEASE)], NOW)
    client.exchange()
    (read,) = client.deliveries
    assert read.envelope == handed.envelope
    assert (read.attempt, read.suspect, read.interest) == (handed.attempt, handed.suspect, handed.interest)


def test_two_consumers_of_a_group_share_it(client):
    assert client.exchange("1", "2", "3", limits=(2, 100)) == [["1", "2"], ["3"]]
    assert client.exchange("4", "5", limits=(100, 100)) == [["4", "5"], []]
    assert client.exchange("6", "7", "8", limits=(1, 1)) == [["6"], ["7"]]
    assert client.exchange("9", limits=(100, 100)) == [["8", "9"], []]


def test_two_consumers_of_a_group_share_what_is_looked_up(client):
    client.store.commit([Envelope(id="0", channel="jobs.a", body=b"")], [], NOW)
    assert client.exchange("1", "2", limits=(2, 100)) == [["0", "1"], ["2"]]
    client.exchange("x", channel="jobs.b")  # makes a channel
    assert client.exchange("3", "4", limits=(1, 100)) == [["3"], ["4"]]


def test_one_of_several_channels(client):
    client.exchange("1", channel="jobs.b")
    assert client.reads("2", channel="jobs.b") == []
    assert client.reads("3", channel="jobs.a") == []
    envelopes = [Envelope(id=str(n), channel=f"jobs.{'ab'[n % 2]}", body=b"", priority=n % 3) for n in range(10, 16)]
    _, (fetched,) = client.store.exchange(envelopes, [], [Ask(client.readers[0], {1: Demand(4)})], NOW)
    assert [each.envelope.id for each in fetched.deliveries] == ["12", "15", "10", "13"]
    assert client.exchange() == [["11", "14"]]


def test_the_most_urgent_first_and_no_more_than_is_wanted(client):
    envelopes = [Envelope(id=str(n), channel="jobs.a", body=b"", priority=50 - n) for n in range(4)]
    _, (fetched,) = client.store.exchange(envelopes, [], [Ask(client.readers[0], {1: Demand(9, 49)})], NOW)
    assert [each.envelope.id for each in fetched.deliveries] == ["3", "2"]
    assert client.exchange("4", priority=0, limits=(2,)) == [["4", "1"]]
    assert client.exchange("5") == [["0", "5"]]


def test_who_waits_for_a_key_takes_no_place(client):
    client.exchange("1", key="k")
    (first,) = client.deliveries
    envelopes = [
        Envelope(id=id, channel="jobs.a", body=b"", key=key) for id, key in (("2", "k"), ("3", "k"), ("4", None))
    ]
    _, (fetched,) = client.store.exchange(envelopes, [], [Ask(client.readers[0], {1: Demand(1)})], NOW)
    assert [each.envelope.id for each in fetched.deliveries] == ["4"]
    assert client.exchange(acks=[first]) == [["2"]]
    assert client.exchange(acks=client.deliveries) == [["3"]]


def test_what_another_process_has_stored_comes_first(client, make):
    other = make()
    client.exchange("0")
    client.exchange("1")
    other.store.commit([Envelope(id="2", channel="jobs.a", body=b"")], [], NOW)
    assert client.exchange("3") == [["2", "3"]]


def test_what_was_not_stored_is_not_handed_out(client):
    envelopes = [Envelope(id=id, channel="jobs.a", body=b"") for id in ("1", "1", "first", "2")]
    result, (fetched,) = client.store.exchange(envelopes, [], [Ask(client.readers[0], {1: Demand(9)})], NOW)
    assert result.published.count(PublishStatus.DUPLICATE) == 2
    assert [each.envelope.id for each in fetched.deliveries] == ["1", "2"]


@pytest.fixture
def full(client, monkeypatch):
    """Takes a step that cannot be committed."""
    book = client.store._book
    execute = book.execute

    def refusing(statement, *parameters):
        if statement == "COMMIT":
            raise sqlite3.OperationalError("database or disk is full")
        return execute(statement, *parameters)

    def with_a_full_disk(step):
        with monkeypatch.context() as patched:
            patched.setattr(book, "execute", refusing)
            with pytest.raises(sqlite3.OperationalError, match="full"):
                step()

    return with_a_full_disk


def test_of_an_undone_transaction_nothing_is_left(client, full):
    full(lambda: client.exchange("1"))
    assert client.exchange() == [[]]
    assert client.exchange("1") == [["1"]]


def test_what_an_undone_transaction_took_is_still_there(client, full, make):
    make().store.commit([Envelope(id="1", channel="jobs.a", body=b"")], [], NOW)
    full(client.exchange)
    assert client.exchange("2") == [["1", "2"]]


def test_what_is_delayed_comes_when_it_is_due(client):
    client.exchange("1")
    nack = Settlement(client.deliveries[0], Outcome.NACK, delay_ns=5)
    ask = Ask(client.readers[0], {1: Demand(9)})
    _, (fetched,) = client.store.exchange((), [nack], [ask], NOW)
    assert fetched.due is not None
    assert fetched.due.mono == NOW.mono + 5
    assert client.exchange("2") == [["2"]]
    _, (fetched,) = client.store.exchange((), (), [ask], Moment(NOW.mono + 5, NOW.wall))
    assert [each.envelope.id for each in fetched.deliveries] == ["1"]
    assert fetched.due is None


def test_who_waits_for_the_key_of_a_damaged_message_comes_next(client):
    """Another group finds the damage, and this one has nothing else to take."""
    audit = Reader(client.readers[0].owner, "h")
    client.store.update(audit, [Interest(id=1, pattern="jobs.*")], NOW)
    assert client.exchange("1", "2", key="k") == [["1"]]
    with closing(connect(client.path)) as connection:
        connection.execute("UPDATE nc_message SET body = x'00' WHERE attributes LIKE '%\"1\"%'")
    fetched = client.store.exchange((), (), [Ask(audit, {1: Demand(9)})], NOW)[1][0]
    assert [each.envelope.id for each in fetched.deliveries] == ["2"]
    assert client.exchange() == [["2"]]


def test_who_was_given_up_gets_nothing(client, make):
    other = make()
    client.exchange("1")
    other.store.give_up(client.readers[0].owner, NOW)
    assert client.exchange("2") == [[]]
    assert other.exchange() == [["1", "2"]]


def test_who_has_left_gets_nothing(client):
    client.exchange()
    client.store.disconnect(client.readers[0].owner, NOW)
    assert client.exchange("2") == [[]]


def test_after_a_seek_everything_comes_again(client):
    client.exchange("1")
    client.exchange("2")
    client.store.seek(client.readers[0], 1, "beginning", NOW)
    assert client.exchange("3") == [["1", "2", "3"]]


def publish(client, *ids, channel="jobs.a"):
    client.store.commit([Envelope(id=id, channel=channel, body=b"") for id in ids], [], NOW)


def test_after_a_commit_of_known_ones_another_process_is_still_heard(client, make):
    """The commit gives out a number, and stores nothing: the other one gives out the same."""
    other = make()
    client.exchange()
    known = Envelope(id="first", channel="jobs.a", body=b"")
    result, _ = client.store.exchange([known], (), [Ask(client.readers[0], {1: Demand(9)})], NOW)
    assert result.published == [PublishStatus.DUPLICATE]
    publish(other, "1")
    assert client.exchange("2") == [["1", "2"]]


def test_after_a_commit_of_known_ones_an_end_by_others_is_still_heard(client, make):
    other = make()
    client.exchange()
    publish(client, "first")
    other.store.give_up(client.readers[0].owner, NOW)
    assert client.exchange("1") == [[]]


def test_a_channel_that_was_never_made_is_not_taken_for_the_next_one(client, full, make):
    full(lambda: client.exchange("1", channel="jobs.x"))
    publish(make(), "2", channel="jobs.y")
    client.exchange()
    assert [(each.envelope.channel, each.envelope.id) for each in client.deliveries] == [("jobs.y", "2")]


def test_who_waits_for_the_key_of_what_is_set_aside_comes_at_the_next_look(client):
    assert client.exchange("1", "2", key="k") == [["1"]]
    client.store.commit((), [Settlement(client.deliveries[0], Outcome.NACK)], NOW)
    with closing(connect(client.path)) as connection:
        connection.execute("UPDATE nc_message SET body = x'00' WHERE attributes LIKE '%\"1\"%'")
    reader, demand = client.readers[0], {1: Demand(9)}
    found = client.store.fetch(reader, demand, NOW)
    assert found.deliveries == []
    assert found.again
    assert [each.envelope.id for each in client.store.fetch(reader, demand, NOW).deliveries] == ["2"]
