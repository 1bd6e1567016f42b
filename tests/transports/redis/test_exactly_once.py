"""Answers that never come: each message is stored once, its status is right, and no delivery is lost or suspect."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.errors import NotStored, Unavailable
from neuralcore.messaging.transport import Outcome, PublishStatus, Settlement, SettleStatus
from tests.servers.missing import ALL_REDIS_VERSIONS
from tests.transports.redis.clients import Member, ack, envelope, eventually, new_prefix, opened, publish

STORED, DUPLICATE, REFUSED = PublishStatus.STORED, PublishStatus.DUPLICATE, PublishStatus.REFUSED
each_version = pytest.mark.parametrize("redis_server", ALL_REDIS_VERSIONS, indirect=True)


@pytest.fixture
def prefix():
    return new_prefix()


@pytest.fixture
def proxy(redis_server, proxy_to):
    return proxy_to(redis_server.port)


def stored(server, prefix: str, channel: str = "orders") -> Counter[str]:
    """How often each id is in the streams of a channel."""
    with server.client() as admin:
        keys = admin.keys(f"{prefix}:{{{channel}}}:p:*")
        return Counter(fields["ce_id"] for key in keys for _, fields in admin.xrange(key))


def skip_what_cannot_be(transport, cut: bool) -> None:
    if not cut and transport._servers.version() < (7, 0):
        pytest.skip("an older server writes an answer in pieces, and TCP loses no piece alone")


# Publishing


@each_version
@pytest.mark.parametrize("cut", [True, False])
async def test_the_answer_to_a_publish_is_lost(redis_server, proxy, prefix, cut):
    async with opened(redis_server.url(port=proxy.port), prefix=prefix, timeout=0.5) as transport:
        skip_what_cannot_be(transport, cut)
        await publish(transport, envelope("before"))
        proxy.drop_replies(after=b"lost-one", replies=1, cut=cut)
        assert await publish(transport, envelope("lost-one"), envelope("lost-two")) == [STORED, STORED]
        assert await publish(transport, envelope("lost-one")) == [DUPLICATE]
    assert proxy.counted.lost > 0
    assert stored(redis_server, prefix) == Counter(["before", "lost-one", "lost-two"])


async def test_a_duplicate_whose_answer_is_lost_is_not_stored_again(redis_server, proxy, prefix):
    async with opened(redis_server.url(port=proxy.port), prefix=prefix) as transport:
        await publish(transport, envelope("twice"))
        proxy.drop_replies(after=b"twice", cut=True)
        assert await publish(transport, envelope("twice"), envelope("new")) in ([DUPLICATE, STORED], [STORED, STORED])
    assert stored(redis_server, prefix) == Counter(["twice", "new"])


@pytest.mark.parametrize("overflow", ["reject", "block", "drop_new"])
async def test_a_lost_answer_in_the_last_room_is_not_taken_for_full(redis_server, proxy, prefix, overflow):
    async with opened(redis_server.url(port=proxy.port), prefix=prefix) as transport:
        await transport.declare(ChannelConfig("orders", capacity=2, overflow=overflow))
        await Member.of(transport)
        await publish(transport, envelope("first"))
        proxy.drop_replies(after=b"last-room", cut=True)
        found = await publish(transport, envelope("last-room"), envelope("too-many"))
        assert found[0] is STORED
        assert found[1] not in (STORED, DUPLICATE)
    assert stored(redis_server, prefix) == Counter(["first", "last-room"])


@pytest.mark.parametrize("attempt", range(5))
async def test_connections_that_are_cut_again_and_again(redis_server, proxy, prefix, attempt):
    ids = [f"{attempt}-{number}" for number in range(200)]
    async with opened(redis_server.url(port=proxy.port), prefix=prefix, patience=20) as transport:
        await publish(transport, envelope("before"))
        ended = asyncio.Event()

        async def cut() -> None:
            while not ended.is_set():
                proxy.cut()
                await asyncio.sleep(0.03)

        cutting = asyncio.ensure_future(cut())
        try:
            chunks = [publish(transport, *(envelope(id) for id in ids[at : at + 5])) for at in range(0, len(ids), 5)]
            found = [status for statuses in await asyncio.gather(*chunks) for status in statuses]
        finally:
            ended.set()
            await cutting
    assert Counter(found) == {STORED: len(ids)}
    assert stored(redis_server, prefix) == Counter(["before", *ids])


@pytest.mark.parametrize("step", [b"\r\nadd\r\n", b"\r\ncreate\r\n"])
async def test_the_making_of_a_channel_is_cut_short(redis_server, proxy, prefix, step):
    async with opened(redis_server.url(port=proxy.port), prefix=prefix) as transport:
        proxy.drop_replies(after=step, cut=True)
        assert await publish(transport, envelope("first")) == [STORED]
    assert proxy.counted.lost > 0
    assert stored(redis_server, prefix) == Counter(["first"])


async def test_a_server_that_stands_still(start_redis):
    server = start_redis()
    async with opened(server.url(), timeout=0.5, patience=1) as transport:
        await publish(transport, envelope("before"))
        server.pause()
        with pytest.raises(Unavailable) as caught:
            await publish(transport, envelope("meanwhile"))
        assert not isinstance(caught.value, NotStored)  # the paused server has it in its socket
        server.resume()
        assert (await publish(transport, envelope("meanwhile")))[0] in (STORED, DUPLICATE)
        assert await publish(transport, envelope("after")) == [STORED]
    assert stored(server, "nc") == Counter(["before", "meanwhile", "after"])


async def test_a_server_that_stands_still_for_less_than_the_patience(start_redis):
    server = start_redis()
    async with opened(server.url(), timeout=0.3, patience=20) as transport:
        await publish(transport, envelope("before"))
        server.pause()
        sending = asyncio.ensure_future(publish(transport, envelope("meanwhile")))
        lost = lambda: transport._runtime.counters["connections_lost"]  # noqa: E731
        await eventually(lost, "the connection to be given up")
        assert not sending.done()
        server.resume()
        assert await sending == [STORED]
    assert stored(server, "nc") == Counter(["before", "meanwhile"])


async def test_a_server_that_is_gone_stores_nothing_and_says_so(start_redis):
    server = start_redis()
    async with opened(server.url(), patience=0.5) as transport:
        await publish(transport, envelope("before"))
        server.kill()
        await eventually(lambda: transport._runtime.counters["connections_lost"], "the connection to be lost")
        began = time.monotonic()
        with pytest.raises(NotStored, match=r"stored nothing: 127\.0\.0\.1.*safe to retry"):
            await publish(transport, envelope("refused"))
        assert time.monotonic() - began < 2
        server.start()
        assert await publish(transport, envelope("after")) == [STORED]
    assert stored(server, "nc").keys() & {"refused", "after"} == {"after"}


@each_version
async def test_publishes_that_are_cancelled(redis_server, prefix):
    async with opened(redis_server.url(), prefix=prefix) as transport:
        await publish(transport, envelope("before"))
        for number in range(100):
            sending = asyncio.ensure_future(publish(transport, envelope(f"c{number}")))
            for _ in range(number % 7):
                await asyncio.sleep(0)
            sending.cancel()
            await asyncio.wait({sending})
        ids = [f"c{number}" for number in range(100)]
        again = await publish(transport, *(envelope(id) for id in ids))
        assert set(again) <= {STORED, DUPLICATE}
    assert stored(redis_server, prefix) == Counter(["before", *ids])


# Settling


@each_version
@pytest.mark.parametrize("outcome", [Outcome.ACK, Outcome.NACK, Outcome.RELEASE])
async def test_the_answer_to_a_settlement_is_lost(redis_server, proxy, prefix, outcome):
    async with opened(redis_server.url(port=proxy.port), prefix=prefix) as transport:
        member = await Member.of(transport)
        await publish(transport, envelope("one"))
        (got,) = await member.fetch()
        proxy.drop_replies(after=got.lease.entry.encode(), cut=True)
        result = await transport.commit((), [Settlement(got, outcome)])
        assert result.settled == [SettleStatus.SETTLED]
        again = await member.fetch(timeout=0.3 if outcome is Outcome.ACK else 5)
        expected = {Outcome.ACK: [], Outcome.NACK: [2], Outcome.RELEASE: [1]}[outcome]
        assert [each.attempt for each in again] == expected
        assert not any(each.suspect for each in again)
        assert (await transport.stats())["orders"].rejected_settlements == 0


async def test_a_settlement_and_its_dead_letter_are_lost_together(redis_server, proxy, prefix):
    async with opened(redis_server.url(port=proxy.port), prefix=prefix) as transport:
        member = await Member.of(transport)
        await publish(transport, envelope("poison"))
        (got,) = await member.fetch()
        proxy.drop_replies(after=b"dead-letter", cut=True)
        letter = envelope("dead-letter", channel="_dlq.orders")
        result = await transport.commit([letter], [Settlement(got, Outcome.ACK, after=0)])
        assert (result.published, result.settled) == ([STORED], [SettleStatus.SETTLED])
    assert stored(redis_server, prefix) == Counter()
    with redis_server.client() as admin:
        entries = admin.xrange(f"{prefix}:_dlq.{{orders}}:p:50")
    assert [fields["ce_id"] for _, fields in entries] == ["dead-letter"]


# Fetching


@each_version
@pytest.mark.parametrize("cut", [True, False])
async def test_the_answer_to_a_fetch_is_lost(redis_server, proxy, prefix, cut):
    """It comes again long before the lease ends, and is not held against the message."""
    ids = [f"m{number}" for number in range(5)]
    async with opened(redis_server.url(port=proxy.port), prefix=prefix, lease=30, timeout=0.5) as transport:
        skip_what_cannot_be(transport, cut)
        member = await Member.of(transport, "readers")
        await publish(transport, *map(envelope, ids))
        proxy.drop_replies(after=b"readers", replies=1, cut=cut)
        with pytest.raises(Unavailable):
            await member.fetch()
        assert proxy.counted.lost > 0
        began = time.monotonic()
        got = await member.drain(*ids)
        assert time.monotonic() - began < 5
        assert [(each.envelope.id, each.attempt, each.suspect) for each in got] == [(id, 1, False) for id in ids]
        stats = (await transport.stats())["orders"]
        assert (stats.depth, stats.in_flight, stats.rejected_settlements) == (0, 0, 0)


async def test_whatever_is_lost_of_a_reader_of_many_channels_is_unavailable(redis_server, proxy, prefix):
    """It looks which of them has something urgent before it fetches: peeks may fail too."""
    async with opened(redis_server.url(port=proxy.port), prefix=prefix, timeout=0.5) as transport:
        await publish(transport, *(envelope(channel=f"orders.{number}") for number in range(5)))
        member = await Member.of(transport, pattern="orders.*")
        proxy.partition()
        for _ in range(2):
            with pytest.raises(Unavailable):
                await member.fetch(timeout=1)
        proxy.heal()
        await member.drain(timeout=5)


async def test_nothing_is_settled_after_a_publish_that_is_refused_for_good(redis_server, prefix):
    """It would be a dead letter that is nowhere."""
    async with opened(redis_server.url(), prefix=prefix) as transport:
        member = await Member.of(transport)
        await publish(transport, envelope("poison"))
        (got,) = await member.fetch()
        letter = envelope("letter", channel="_dlq.orders", headers={f"h{number}": "" for number in range(4000)})
        result = await transport.commit([letter], [Settlement(got, Outcome.ACK, after=0)])
        assert list(result.published) == [REFUSED]
        assert list(result.settled) == [SettleStatus.SKIPPED]
        assert list((await ack(transport, got)).settled) == [SettleStatus.SETTLED]


@each_version
@pytest.mark.parametrize("key", [None, "ada"])
async def test_a_push_is_lost(redis_server, proxy, prefix, key):
    """The server hands out what is stored to who waits for it; nobody answers that."""
    async with (
        opened(redis_server.url(port=proxy.port), prefix=prefix, lease=30, timeout=1) as reading,
        opened(redis_server.url(), prefix=prefix) as writing,
    ):
        member = await Member.of(reading)
        assert await member.fetch(timeout=0.1) == []
        proxy.blackhole()
        await publish(writing, envelope("first", key=key))
        proxy.cut()
        proxy.heal()
        got = await member.drain("first", timeout=10)
        assert [(each.attempt, each.suspect) for each in got] == [(1, False)]
        await publish(writing, envelope("second", key=key))
        got = await member.drain("second", timeout=10)
        assert [(each.attempt, each.suspect) for each in got] == [(1, False)]


@pytest.mark.slow
async def test_under_cuts_everything_comes_and_nothing_twice_while_its_lease_lasts(redis_server, proxy, prefix):
    ids = [f"m{number}" for number in range(300)]
    async with (
        opened(redis_server.url(port=proxy.port), prefix=prefix, lease=30, timeout=1) as reading,
        opened(redis_server.url(), prefix=prefix) as writing,
    ):
        member = await Member.of(reading)
        draining = asyncio.ensure_future(member.drain(*ids, timeout=40, silence=1.5))
        for at in range(0, len(ids), 10):
            await publish(writing, *map(envelope, ids[at : at + 10]))
            proxy.cut()
            await asyncio.sleep(0.05)
        got = await draining
        settled = Counter(each.envelope.id for each in got)
        assert settled.keys() == set(ids)
        assert not any(each.suspect or each.attempt > 1 for each in got)
        stats = (await reading.stats())["orders"]
        assert (stats.depth, stats.in_flight) == (0, 0)
        assert settled == Counter(ids)


async def test_a_fetch_that_is_cancelled_loses_nothing(redis_server, prefix):
    ids = [f"m{number}" for number in range(30)]
    async with opened(redis_server.url(), prefix=prefix, lease=30) as transport:
        member = await Member.of(transport)
        got = []
        for number, id in enumerate(ids):
            fetching = asyncio.ensure_future(member.fetch())
            for _ in range(number % 6):
                await asyncio.sleep(0)
            await publish(transport, envelope(id))
            if not fetching.done():
                fetching.cancel()
            await asyncio.wait({fetching})
            if not fetching.cancelled():
                got += fetching.result()
        await ack(transport, *got)
        rest = await member.drain(*(set(ids) - {each.envelope.id for each in got}), timeout=5)
        got += rest
        assert Counter(each.envelope.id for each in got) == Counter(ids)
        assert not any(each.suspect or each.attempt > 1 for each in got)
