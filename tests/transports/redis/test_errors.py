"""What can be wrong with a server, for real: what a user sees, and that all goes on when the cause is gone."""

from __future__ import annotations

import asyncio
import time

import pytest

from neuralcore import MessageBus
from neuralcore.messaging.errors import NotStored, PublishUnknown, Unavailable
from neuralcore.messaging.transport import PublishStatus
from neuralcore_transports.redis.durability import check_eviction
from neuralcore_transports.redis.errors import RedisRefused
from neuralcore_transports.redis.options import RedisOptions
from neuralcore_transports.redis.pipe import NotSent
from tests.faults.disks import SmallDisk
from tests.servers.missing import ALL_REDIS_VERSIONS
from tests.servers.ports import free_port
from tests.transports.redis.clients import Member, envelope, eventually, left_over, opened, publish, works

versions = pytest.mark.parametrize("version", ALL_REDIS_VERSIONS)
needs_mount = pytest.mark.skipif(bool(SmallDisk.why_not()), reason=f"cannot mount: {SmallDisk.why_not()}")
STORED = PublishStatus.STORED


# Memory


@pytest.mark.slow
@versions
async def test_out_of_memory(start_redis, version):
    """Publishers are refused; consumers can drain it, and then publishers are let in."""
    server = start_redis(version=version, maxmemory="6mb", appendfsync=None)
    async with opened(server.url(), patience=2) as transport:
        member = await Member.of(transport)
        await member.fetch(timeout=0.01)
        stored, body = [], b'"%s"' % (b"x" * 50_000)
        began = time.monotonic()
        with pytest.raises(NotStored, match=r"out of memory: raise maxmemory, or let consumers drain it \(.*OOM"):  # noqa: PT012
            while time.monotonic() - began < 20:
                sent = envelope(body=body)
                if await publish(transport, sent) == [STORED]:
                    stored.append(sent.id)
        assert len(stored) > 20
        assert (await transport.health()).ok
        assert (await transport.stats())["orders"].depth == len(stored)
        got = await member.drain(*stored)
        assert sorted(each.envelope.id for each in got) == sorted(stored)
        await works(transport, member)


@versions
@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "noeviction"])
async def test_a_server_that_removes_messages_is_warned_of(start_redis, version, policy, caplog):
    server = start_redis(version=version, maxmemory="50mb", maxmemory_policy=policy, appendfsync=None)
    async with MessageBus(server.url()) as bus:
        await bus.publish("orders", 1)
    warned = f"has maxmemory-policy {policy}: when it has 52 MB it removes keys" in caplog.text
    assert warned == (policy != "noeviction")
    with server.client() as admin:
        admin.config_set("maxmemory", "0")
    caplog.clear()
    async with MessageBus(server.url()):
        assert "maxmemory" not in caplog.text, "there is nothing that it could be short of"


@pytest.mark.parametrize("error", [NotSent("gone"), TimeoutError(), RedisRefused("here", "NOPERM")])
async def test_a_server_that_does_not_say_what_it_removes_is_used_all_the_same(error):
    class Servers:
        options = RedisOptions()

        async def each(self, *command):
            raise error

    await check_eviction(Servers())


async def test_out_of_memory_from_the_beginning(start_redis):
    server = start_redis(appendfsync=None)
    with server.client() as admin:
        admin.config_set("maxmemory", "500kb")
        with pytest.raises(Unavailable, match="memory"):  # noqa: PT012 - a script that has begun to write may end
            async with MessageBus(server.url()) as bus:
                for _ in range(5):
                    await bus.publish("orders", 1)
        admin.config_set("maxmemory", "0")
    async with MessageBus(server.url()) as bus:
        assert await bus.publish("orders", 1)


# Roles


@versions
async def test_a_server_that_became_a_replica(start_redis, version):
    server = start_redis(version=version)
    async with opened(server.url(), patience=0.5) as transport:
        member = await Member.of(transport)
        await works(transport, member)
        with server.client() as admin:
            admin.replicaof("127.0.0.1", free_port())  # that is not there, so that it keeps what it has
            with pytest.raises(NotStored, match=r"it is a replica now, and takes no writes .*READONLY"):
                await publish(transport, envelope("refused"))
            with pytest.raises(Unavailable, match="replica"):
                await member.fetch(timeout=3)
            admin.execute_command("REPLICAOF NO ONE")
        await works(transport, member)


async def test_a_publish_waits_for_a_server_that_is_a_replica_for_a_moment(start_redis):
    server = start_redis()
    async with opened(server.url()) as transport:
        await publish(transport)
        with server.client() as admin:
            admin.replicaof("127.0.0.1", free_port())  # that is not there, so that it keeps what it has
            sending = asyncio.ensure_future(publish(transport, envelope("patient")))
            await asyncio.sleep(0.1)
            assert not sending.done()
            admin.execute_command("REPLICAOF NO ONE")
        assert await sending == [STORED]


@pytest.mark.slow
@versions
@pytest.mark.parametrize("first", ["publish", "fetch"])
async def test_a_replica_that_lacks_the_end_is_promoted(start_redis, version, proxy_to, first):
    """What was published and is gone is reported, whoever comes first, and traffic goes on."""
    master = start_redis(version=version)
    replica = start_redis(version=version, replica_of=master)
    proxy = proxy_to(master.port)
    async with opened(f"redis://127.0.0.1:{proxy.port}", patience=5, poll=0.1) as transport:
        member = await Member.of(transport)
        await works(transport, member)
        await asyncio.to_thread(master.wait_for_replicas)
        with replica.client() as admin:
            admin.execute_command("REPLICAOF NO ONE")
        await publish(transport, envelope("tail-1"), envelope("tail-2"))
        proxy.target = ("127.0.0.1", replica.port)
        proxy.cut()
        if first == "fetch":
            with replica.client() as admin:
                verb = "evalsha" if version == "6.2" else "fcall"
                served = lambda: admin.info("commandstats").get(f"cmdstat_{verb}", {"calls": 0})["calls"]  # noqa: E731
                before = served()

                async def looked() -> bool:
                    await member.fetch(timeout=0.2)
                    return served() > before + 3

                await eventually(looked, "the new server to be asked")
        assert set(await left_over(transport, member)) <= {"tail-1", "tail-2"}, "they may have been here already"
        await eventually(lambda: transport._runtime.told("data lost on orders"), "the loss to be reported", 2)


# Starting up


SLOW_LOADING = {"key-load-delay": "2000", "loading-process-events-interval-bytes": "1024"}


@pytest.mark.slow
async def test_a_server_that_is_loading(start_redis):
    server = start_redis(options=SLOW_LOADING, appendfsync=None)
    async with opened(server.url(), patience=0.5) as transport:
        member = await Member.of(transport)
        await publish(transport, envelope("kept"))
        with server.client() as admin:
            for number in range(1500):
                admin.set(f"ballast{number}", "x")
            admin.save()
        server.stop()
        server.answers = lambda: True
        server.start()
        await eventually(lambda: transport._runtime.counters["connections_lost"], "the restart to be noticed")
        with pytest.raises(NotStored, match="it is loading its data"):
            await publish(transport, envelope("refused"))
        fresh = opened(server.url(), prefix="other")
        with pytest.raises(Unavailable, match="it is loading its data"):
            await fresh.__aenter__()
        await member.drain("kept", timeout=20)
        await works(transport, member)


# Disks


@versions
async def test_a_save_that_fails(start_redis, version):
    protected = {} if version == "6.2" else {"enable-protected-configs": "yes"}
    server = start_redis(version=version, appendfsync=None, options=protected)
    async with opened(server.url(), patience=0.5) as transport:
        member = await Member.of(transport)
        await works(transport, member)
        with server.client() as admin:
            admin.config_set("save", "3600 1")
            folder = server.folder / "gone"
            folder.mkdir()
            admin.config_set("dir", str(folder))
            folder.rmdir()
            admin.bgsave()
            failed = lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "err"  # noqa: E731
            await eventually(failed, "the save to fail")
            with pytest.raises(NotStored, match=r"it cannot write to its disk, and refuses writes \(.*MISCONF"):
                await publish(transport, envelope("refused"))
            folder.mkdir()
            admin.config_set("dir", str(folder))
            admin.bgsave()
            saved = lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "ok"  # noqa: E731
            await eventually(saved, "a save that works")
        await works(transport, member)


@needs_mount
async def test_a_full_disk(start_redis, tmp_path):
    """Everything that was acknowledged is there after a restart."""
    with SmallDisk(tmp_path / "small", size=4 << 20) as disk:
        server = start_redis(options={"dir": str(disk.path)}, appendfsync="always")
        try:
            async with opened(server.url(), patience=0.5) as transport:
                member = await Member.of(transport)
                stored = [envelope()]
                assert await publish(transport, *stored) == [STORED]
                disk.fill(leave=100_000)
                says = rf"cannot write to its disk|127\.0\.0\.1:{server.port}: .*check that it runs"
                with pytest.raises(Unavailable, match=says):  # noqa: PT012
                    for _ in range(100):
                        sent = envelope(body=b'"%s"' % (b"x" * 5000))
                        await publish(transport, sent)
                        stored.append(sent)
                disk.free()
                if not server.running:  # with appendfsync always it ends itself
                    server.start()
                others = await left_over(transport, member)
                assert {each.id for each in stored} <= set(others) <= {each.id for each in stored} | {sent.id}
        finally:
            server.kill()


# Going away, and coming back as another


async def test_a_bus_on_a_server_that_goes_away_and_comes_back(start_redis):
    server = start_redis()
    got: list[object] = []
    async with MessageBus(f"{server.url()}?patience=0.5&timeout=1") as bus:
        await bus.subscribe("orders", lambda message: got.append(message.payload), group="g").ready()
        await bus.publish("orders", "before")
        server.kill()
        with pytest.raises((NotStored, PublishUnknown), match=r"safe to retry|publish it again") as caught:
            await bus.publish("orders", "meanwhile")
        server.start()
        await bus.publish("orders", "after")
        await eventually(lambda: {"before", "after"} <= set(got), "the messages to arrive")
    assert got.count("meanwhile") <= (0 if isinstance(caught.value, NotStored) else 1)


@pytest.mark.parametrize(("version", "expected"), [("6.2", (6, 2)), ("7.0", (7, 0)), ("8.2", (8, 2))])
async def test_the_version_of_the_server_is_found_out(start_redis, version, expected):
    server = start_redis(version=version)
    async with opened(server.url()) as transport:
        assert transport._servers.version()[:2] == expected


@pytest.mark.parametrize("version", ["6.2", "7.0"])
async def test_a_server_is_exchanged_for_another_version(start_redis, proxy_to, version):
    """By an upgrade: the scripts, and WAITAOF, are what the new one has."""
    old, new = start_redis(version=version, appendfsync="always"), start_redis(version="8.2")
    proxy = proxy_to(old.port)
    async with opened(f"redis://127.0.0.1:{proxy.port}", durability="disk", lease=0.5) as transport:
        member = await Member.of(transport)
        await works(transport, member)
        proxy.target = ("127.0.0.1", new.port)
        proxy.cut()
        await works(transport, member)
        assert transport._servers.version()[:2] == (8, 2)
        with new.client() as admin:
            assert "cmdstat_waitaof" in admin.info("commandstats")
