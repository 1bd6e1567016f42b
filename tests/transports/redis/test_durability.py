"""As durably as was asked for: replicas that must confirm, disks that must be written, and no false acknowledgement."""

from __future__ import annotations

import asyncio
import time

import pytest

from neuralcore import MessageBus
from neuralcore.messaging.errors import NotStored, PublishUnknown, TransportError, Unavailable
from neuralcore.messaging.transport import Outcome, PublishStatus, Settlement
from tests.servers.missing import ALL_REDIS_VERSIONS
from tests.transports.redis.clients import Member, envelope, opened, publish

versions = pytest.mark.parametrize("version", ALL_REDIS_VERSIONS)
STORED = PublishStatus.STORED


# Replicas


@pytest.mark.slow
@versions
async def test_a_replica_that_does_not_confirm(start_redis, version):
    """Stored, but not as durably as was asked for: never a false acknowledgement."""
    master = start_redis(version=version)
    replica = start_redis(version=version, replica_of=master)
    await asyncio.to_thread(master.wait_for_replicas)
    async with opened(master.url(), replicas=1, timeout=1, patience=2) as transport:
        assert await publish(transport) == [STORED]
        replica.pause()
        with pytest.raises(Unavailable, match=r"only 0 of 1 replicas have it") as caught:
            await publish(transport, envelope("unsure"))
        assert not isinstance(caught.value, NotStored)
        replica.resume()
        assert (await publish(transport, envelope("unsure")))[0] in (STORED, PublishStatus.DUPLICATE)
    replica.pause()
    async with MessageBus(f"{master.url()}?replicas=1&timeout=0.5&patience=1") as bus:
        with pytest.raises(PublishUnknown, match="not known whether"):
            await bus.publish("orders", 1)
    replica.resume()


@versions
@pytest.mark.parametrize("settling", [False, True])
async def test_an_answer_that_is_lost_is_no_confirmation_by_a_replica(start_redis, proxy_to, version, settling):
    """The new connection has written nothing yet, and must not wait for nothing."""
    master = start_redis(version=version)
    replica = start_redis(version=version, replica_of=master)
    await asyncio.to_thread(master.wait_for_replicas)
    proxy = proxy_to(master.port)
    async with opened(f"redis://127.0.0.1:{proxy.port}", replicas=1, timeout=1, patience=2) as transport:
        member = await Member.of(transport)
        await publish(transport, envelope("before"))
        (got,) = await member.fetch()
        replica.pause()
        try:
            proxy.drop_replies(after=b"unsure", cut=True)
            settlements = [Settlement(got, Outcome.NACK)] if settling else []
            with pytest.raises(Unavailable, match="only 0 of 1 replicas have it") as caught:
                await transport.commit([envelope("unsure")], settlements)
            assert not isinstance(caught.value, NotStored)
        finally:
            replica.resume()


@versions
async def test_a_publish_again_by_a_new_client_is_no_confirmation_by_a_replica(start_redis, version):
    master = start_redis(version=version)
    replica = start_redis(version=version, replica_of=master)
    await asyncio.to_thread(master.wait_for_replicas)
    replica.pause()
    url = f"{master.url()}?replicas=1&timeout=1&patience=1"
    try:
        for _ in range(2):
            async with MessageBus(url) as bus:
                with pytest.raises(PublishUnknown, match="not known whether"):
                    await bus.publish("orders", 1, idempotency_key="same")
    finally:
        replica.resume()
    await asyncio.to_thread(master.wait_for_replicas)
    async with MessageBus(url) as bus:
        await bus.publish("orders", 1, idempotency_key="same")


async def test_more_replicas_than_there_are(start_redis):
    server = start_redis()
    async with opened(server.url(), replicas=1, timeout=0.5, patience=1) as transport:
        with pytest.raises(Unavailable, match="only 0 of 1 replicas"):
            await publish(transport)


# Disks


async def test_a_publish_again_by_a_new_client_is_not_on_disk_either(start_redis):
    server = start_redis(version="8.2", appendfsync="no")
    for _ in range(2):
        async with opened(server.url(), durability="disk", timeout=1) as transport:
            with pytest.raises(Unavailable, match="not on disk"):
                await publish(transport, envelope("same"))


@pytest.mark.parametrize("appendfsync", ["everysec", "always", pytest.param("no", marks=pytest.mark.slow)])
async def test_on_disk_by_waitaof(start_redis, appendfsync):
    server = start_redis(version="8.2", appendfsync=appendfsync)
    began = time.monotonic()
    async with opened(server.url(), durability="disk") as transport:
        if appendfsync == "no":
            with pytest.raises(Unavailable, match="not on disk"):
                await publish(transport)
            return
        assert await publish(transport, envelope("kept")) == [STORED]
        with server.client() as admin:
            assert admin.info("persistence")["aof_pending_bio_fsync"] == 0
            calls = admin.info("commandstats")["cmdstat_waitaof"]["calls"]
        assert calls >= 1
        assert time.monotonic() - began < 4


@pytest.mark.parametrize(
    ("version", "appendfsync"), [("6.2", "everysec"), ("7.0", "everysec"), ("7.0", "no"), ("7.0", None), ("8.2", None)]
)
async def test_on_disk_is_refused_where_it_cannot_be_had(start_redis, version, appendfsync):
    server = start_redis(version=version, appendfsync=appendfsync)
    says = "appendonly yes" if appendfsync is None else "appendfsync always"
    with pytest.raises(TransportError, match=says) as caught:
        async with opened(server.url(), durability="disk"):
            pass
    assert not isinstance(caught.value, Unavailable)


@pytest.mark.parametrize("version", ["6.2", "7.0"])
async def test_on_disk_before_waitaof(start_redis, version):
    server = start_redis(version=version, appendfsync="always")
    async with opened(server.url(), durability="disk") as transport:
        assert await publish(transport, envelope("kept")) == [STORED]
    server.restart(kill=True)
    with server.client() as admin:
        assert admin.xlen("nc:{orders}:p:50") == 1
