"""What clients are told, and what they find out by asking, come on different connections."""

from __future__ import annotations

from neuralcore.messaging.errors import Unavailable
from tests.transports.redis.clients import Member, envelope, eventually, new_prefix, opened, publish


async def test_a_channel_that_was_told_of_before_an_older_list_came(redis_server):
    url, prefix = redis_server.url(), new_prefix()
    async with opened(url, prefix=prefix) as transport, opened(url, prefix=prefix) as other:
        member = await Member.of(transport, pattern="orders.*")
        ask, consumer = transport.client.channels, member.consumer

        async def late() -> list[str]:
            transport.client.channels = ask
            channels = await ask()
            await publish(other, envelope("1", channel="orders.new"))
            await eventually(consumer.places, "the news")
            return channels

        transport.client.channels = late
        consumer.look_again(channels=True)
        (got,) = await member.fetch()
        assert got.envelope.id == "1"
        await eventually(lambda: transport.client.channels is ask, "the list")
        await publish(other, envelope("2", channel="orders.new"))
        (got,) = await member.fetch()
        assert got.envelope.id == "2"


async def test_channels_that_could_not_be_listed_are_listed_again(redis_server):
    url, prefix = redis_server.url(), new_prefix()
    async with opened(url, prefix=prefix) as transport, opened(url, prefix=prefix) as other:
        member = await Member.of(transport, pattern="orders.*")
        ask = transport.client.channels

        async def fails() -> list[str]:
            transport.client.channels = ask
            raise Unavailable("redis", "for a moment")

        transport._news._version = None  # it has missed something
        transport.client.channels = fails
        await publish(other, envelope("1", channel="orders.new"))
        got = await member.drain("1")
        assert len(got) == 1


async def test_who_waits_on_several_channels_leaves_the_server_alone(start_redis):
    server = start_redis()
    async with opened(server.url()) as transport:
        member = await Member.of(transport, pattern="orders.*")
        await publish(transport, *(envelope(channel=f"orders.{number}") for number in range(5)))
        assert len(await member.fetch()) == 5

        def calls() -> int:
            with server.client() as client:
                return sum(each["calls"] for name, each in client.info("commandstats").items() if "fcall" in name)

        before = calls()
        assert await member.fetch(timeout=1.5) == []
        assert calls() - before < 100, "about one look at each channel a second"
