"""What one commit does with many messages by few statements, and what that must not change."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import pytest

from neuralcore._core import Clock
from neuralcore.messaging.channel import ChannelConfig, Retention
from neuralcore.messaging.transport import Demand, Envelope, Interest, Outcome, PublishStatus, Settlement, SettleStatus
from neuralcore_transports.sqlite.checkpoint import Checkpointer
from neuralcore_transports.sqlite.clock import StoreClock
from neuralcore_transports.sqlite.opening import connect, prepare
from neuralcore_transports.sqlite.options import SqliteOptions
from neuralcore_transports.sqlite.store import bulk
from neuralcore_transports.sqlite.store.fetch import Ask, Reader
from neuralcore_transports.sqlite.store.moment import Limits, Moment
from neuralcore_transports.sqlite.store.store import Store
from neuralcore_transports.sqlite.store.transaction import Book
from tests.transports.sqlite.logs import used_of

NOW = Moment(10**12, 10**18)
BODY = bytes(range(256))


@pytest.fixture
def store(tmp_path):
    prepare(SqliteOptions(tmp_path / "bus.db"), StoreClock(Clock()))
    with closing(connect(tmp_path / "bus.db")) as connection:
        yield Store(Book(connection), Limits())


@pytest.fixture
def reader(store):
    reader = Reader(store.connect("one", "boot", NOW), "g")
    store.update(reader, [Interest(id=1, pattern="jobs")], NOW)
    return reader


def envelopes(*ids):
    return [Envelope(id=str(id), channel="jobs", body=BODY) for id in ids]


def fetched(store, reader, limit=1000):
    return store.fetch(reader, {1: Demand(limit)}, NOW).deliveries


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 200])
def test_all_parts_are_the_whole(count):
    assert [each for part in bulk.parts(range(count)) for each in part] == list(range(count))
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (a, b)")
        assert bulk.insert(connection.execute, "INSERT INTO t", [(n, b"\0") for n in range(count)]) == count
        assert connection.execute("SELECT count(*), max(a) FROM t").fetchone() == (count, count - 1)


@pytest.mark.parametrize("count", [1, 70, 1000])
def test_bodies_and_order_are_kept(store, reader, count):
    store.commit(envelopes(*range(count)), [], NOW)
    got = fetched(store, reader)
    assert [(each.envelope.id, each.envelope.body) for each in got] == [(str(n), BODY) for n in range(count)]


def test_what_is_known_is_found_among_many(store, reader):
    store.commit(envelopes(3, 50), [], NOW)
    result = store.commit(envelopes(*range(70), 5), [], NOW)
    known = [n for n, status in enumerate(result.published) if status is PublishStatus.DUPLICATE]
    assert known == [3, 50, 70]
    assert [each.envelope.id for each in fetched(store, reader)][:4] == ["3", "50", "0", "1"]
    assert store.stats()["jobs"].depth == 70


def test_an_ack_that_comes_too_late_is_told_among_many(store, reader):
    store.commit(envelopes(*range(70)), [], NOW)
    got = fetched(store, reader)
    store.commit([], [Settlement(got[7], Outcome.RELEASE)], NOW)
    result = store.commit([], [Settlement(each, Outcome.ACK) for each in [*got, got[0]]], NOW)
    late = [n for n, status in enumerate(result.settled) if status is SettleStatus.LEASE_LOST]
    assert late == [7, 70]
    assert store.stats()["jobs"].depth == 1
    assert store.stats()["jobs"].rejected_settlements == 2


def test_the_order_of_acks_tells_what_retention_by_size_keeps(store, reader):
    store.declare(ChannelConfig("jobs", retention=Retention(bytes=300)), NOW)
    store.commit(envelopes(1, 2), [], NOW)
    got = fetched(store, reader)
    store.commit([], [Settlement(each, Outcome.ACK) for each in reversed(got)], NOW)
    assert [each.id for each in store.browse("jobs", "beginning", 9, NOW).envelopes] == ["2"]


def test_what_cannot_be_read_does_not_stop_those_who_publish(store, reader, monkeypatch):
    def broken(*arguments):
        raise sqlite3.DatabaseError("malformed")

    monkeypatch.setattr(store._fetcher, "fetch", broken)
    result, handed = store.exchange(envelopes(1), [], [Ask(reader, {1: Demand(9)})], NOW)
    assert (list(result.published), handed) == ([PublishStatus.STORED], [])
    monkeypatch.undo()
    assert [each.envelope.id for each in fetched(store, reader)] == ["1"]


def test_the_log_is_lengthened_before_it_has_to_grow_and_nothing_is_lost(tmp_path):
    options = SqliteOptions(tmp_path / "bus.db")
    prepare(options, StoreClock(Clock()))
    with closing(connect(options.path)) as connection:
        store = Store(Book(connection), Limits())
        checkpointer = Checkpointer(options)
        try:
            store.commit(envelopes(1), [], NOW)
            checkpointer.look()
            log = tmp_path / "bus.db-wal"
            used, size = used_of(log), log.stat().st_size
            assert size >= used + 1024 * 1024
            store.commit(envelopes(2), [], NOW)
            checkpointer.look()
            assert log.stat().st_size == size, "there is room enough"
            assert used < used_of(log) < size
            for suffix in ("", "-wal"):  # as after a power cut: without the index of the log
                shutil.copy(f"{options.path}{suffix}", f"{tmp_path}/copy.db{suffix}")
        finally:
            checkpointer.close()
    with closing(connect(tmp_path / "copy.db")) as connection:
        assert connection.execute("SELECT count(*) FROM nc_message").fetchone() == (2,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
