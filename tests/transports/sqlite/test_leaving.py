"""Whoever leaves takes nothing away from those who stay and have not fetched yet."""

from __future__ import annotations

import pytest

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.transport import ChannelRef, Demand, Envelope, GroupRef, Interest, Outcome, Settlement
from neuralcore_transports.sqlite.store.fetch import Reader
from neuralcore_transports.sqlite.store.moment import Limits, Moment
from neuralcore_transports.sqlite.store.store import Store
from neuralcore_transports.sqlite.store.transaction import Book
from tests.transports.sqlite.model import connection

NOW = Moment(1, 1)
COUNT = 20


@pytest.fixture
def store() -> Store:
    return Store(Book(connection()), Limits())


def reader(store: Store, owner: int, group: str | None) -> Reader:
    made = Reader(owner, group)
    store.update(made, [Interest(id=1, pattern="c", start="beginning")], NOW)
    return made


def fetch(store: Store, reader: Reader, limit: int = 100):
    return store.fetch(reader, {1: Demand(limit)}, NOW)[0]


def publish(store: Store) -> None:
    store.commit([Envelope(id=str(number), channel="c", body=b"x") for number in range(COUNT)], [], NOW)


@pytest.mark.parametrize("fetched", [0, 5, COUNT])
@pytest.mark.parametrize("leaver", ["other", None])
def test_a_group_keeps_what_it_has_not_fetched_when_another_subscriber_leaves(store, leaver, fetched) -> None:
    owner = store.connect("one", "boot", NOW)
    stays, leaves = reader(store, owner, "stays"), reader(store, owner, leaver)
    publish(store)
    if fetched:
        fetch(store, leaves, fetched)
    if leaver is None:
        store.close_reader(leaves, NOW)
    else:
        store.remove(GroupRef(leaver), NOW)
    while store.tidy(NOW, 7) >= 7:
        pass
    assert len(fetch(store, stays)) == COUNT


def test_what_an_ended_broadcast_settles_late_is_still_there_for_a_group(store) -> None:
    owner = store.connect("one", "boot", NOW)
    stays, leaves = reader(store, owner, "stays"), reader(store, owner, None)
    publish(store)
    late = fetch(store, leaves, 5)
    store.close_reader(leaves, NOW)
    store.commit([], [Settlement(delivery, Outcome.ACK) for delivery in late], NOW)
    deliveries = fetch(store, stays)
    assert len(deliveries) == COUNT
    store.commit([], [Settlement(delivery, Outcome.ACK) for delivery in deliveries], NOW)
    assert store.stats()["c"].stored == 0
    store.remove(ChannelRef("c"), NOW)


def test_who_was_given_up_gets_nothing_that_would_be_nobodys(store) -> None:
    """It stood still for so long that it was forgotten, and fetches before it has heard of that."""
    stood_still = reader(store, store.connect("one", "boot", NOW), "g")
    publish(store)
    store.give_up(stood_still.owner, NOW)
    assert fetch(store, stood_still) == []
    stood_still.owner = store.connect("one", "boot", NOW)
    assert len(fetch(store, stood_still)) == COUNT


def test_a_broadcast_that_ended_with_a_delivery_under_way_goes_with_its_owner(store) -> None:
    owner = store.connect("one", "boot", NOW)
    leaves = reader(store, owner, None)
    publish(store)
    fetch(store, leaves, 5)
    store.close_reader(leaves, NOW)
    store.remove(ChannelRef("c"), NOW)
    store.disconnect(owner, NOW)
    assert store.connection.execute("SELECT count(*) FROM nc_subscriber").fetchone() == (0,)


def test_a_cursor_beyond_the_last_number_is_the_next_one(store) -> None:
    owner = store.connect("one", "boot", NOW)
    store.declare(ChannelConfig("c"), NOW)
    late = Reader(owner, "g")
    store.update(late, [Interest(id=1, pattern="c", start="@1000000")], NOW)
    publish(store)
    assert len(fetch(store, late)) == COUNT
