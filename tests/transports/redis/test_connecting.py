"""Getting in: credentials, rights, TLS, sockets, databases, prefixes; and what is said when it cannot be."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from neuralcore import MessageBus
from neuralcore.messaging.channel import ChannelConfig, Retention
from neuralcore.messaging.errors import TransportError, Unavailable
from neuralcore.messaging.transport import ChannelRef, Group, GroupRef, Interest, Outcome, PublishStatus, Settlement
from neuralcore_transports.redis import NotOurs, RedisRefused
from neuralcore_transports.redis.scripts import INBOX
from tests.servers.missing import ALL_REDIS_VERSIONS, REDIS_VERSIONS
from tests.servers.ports import free_port
from tests.transports.redis.clients import (
    Member,
    ack,
    beats,
    envelope,
    eventually,
    new_prefix,
    opened,
    publish,
    with_options,
)
from tests.transports.redis.test_cluster import move

SECRET = "hunter2"


async def works(url: str, **options: object) -> None:
    """Publish, be told of it, settle it; ask and be answered; and the keeper has told the server of this client."""
    async with opened(url, lease=0.5, **options) as transport:
        member = await Member.of(transport)
        waiting = asyncio.ensure_future(member.fetch())
        await asyncio.sleep(0)
        sent = envelope()
        await publish(transport, sent)
        (got,) = await waiting
        assert got.envelope.id == sent.id
        assert [each.name for each in (await transport.commit((), [Settlement(got, Outcome.ACK)])).settled] == [
            "SETTLED"
        ]
        inbox = await transport.inbox()
        await publish(transport, envelope("answer", channel=inbox.address))
        assert [each.id for each in await inbox.fetch(5.0)] == ["answer"]
        assert (await transport.health()).ok
        assert set(await transport.channels()) == {"orders"}
        await beats(transport)
        assert transport._runtime.counters["upkeep_failed"] == 0


async def refused(url: str, error: type[Exception], says: str, **options: object) -> Exception:
    with pytest.raises(error, match=says) as caught:
        async with opened(url, **options):
            pass
    return caught.value


# Credentials


async def test_with_a_password(start_redis, caplog):
    server = start_redis(password=SECRET)
    with caplog.at_level(logging.DEBUG):
        await works(server.url())
        for wrong in (server.url(password=f"{SECRET}x"), server.url(password="")):
            error = await refused(wrong, RedisRefused, f"127.0.0.1:{server.port} refuses: (WRONGPASS|NOAUTH)")
            assert SECRET not in f"{error} {error!r} {error.__cause__!r}"
        await refused(f"redis://127.0.0.1:{server.port}", RedisRefused, "NOAUTH")
    assert SECRET not in caplog.text


async def test_a_bus_is_told_that_its_password_is_wrong_and_does_not_try_for_ever(start_redis, caplog):
    server = start_redis(password=SECRET)
    with pytest.raises(RedisRefused, match="WRONGPASS"):
        async with MessageBus(server.url(password="wrong")):
            pass
    assert "wrong@" not in caplog.text


async def test_a_password_that_changes_is_said_in_the_log_without_it(start_redis, caplog):
    server = start_redis(password=SECRET)
    async with opened(server.url(), patience=0.3, lease=0.5) as transport:
        with server.client() as admin:
            admin.config_set("requirepass", "another")
            admin.execute_command("CLIENT KILL TYPE normal SKIPME yes")
        with pytest.raises(Unavailable, match=r"WRONGPASS|invalid username-password"):
            await publish(transport)
        await eventually(lambda: "invalid username-password" in caplog.text, "the keeper's complaint")
        with redis.Redis(port=server.port, password="another") as admin:
            admin.config_set("requirepass", SECRET)
        await publish(transport)
    assert SECRET not in caplog.text
    assert "another" not in caplog.text


# Rights: docs/redis.md shows these

COMMANDS = (
    "+info +ping +select +client|setname +subscribe +publish +script|load +evalsha +fcall "
    "+function|load +time +exists +type +get +set +incr +unlink +pexpire +pttl "
    "+hget +hmget +hgetall +hset +hsetnx +hdel +hexists +hincrby +hkeys "
    "+rpush +lrange +llen "
    "+zadd +zcard +zcount +zrange +zrangebyscore +zrangebylex +zrem +zscore "
    "+xadd +xdel +xlen +xrange +xack +xclaim +xpending +xreadgroup +xgroup +xinfo"
)


def rules(commands: str = COMMANDS, prefix: str = "nc") -> dict[str, str]:
    return {"bus": f"on >{SECRET} resetkeys resetchannels ~{prefix}:* &{prefix}:* -@all {commands}"}


@pytest.mark.parametrize("version", REDIS_VERSIONS)
async def test_the_least_rights_are_enough(start_redis, version):
    known = "" if version == "7.0" else " +client|setinfo"
    server = start_redis(version=version, users=rules(COMMANDS + known))
    url = server.url(user="bus", password=SECRET)
    await works(url)
    await everything(url)
    with server.client() as admin:
        assert admin.acl_log() == []


@pytest.mark.parametrize("version", ALL_REDIS_VERSIONS)
async def test_the_rights_that_the_documentation_shows_are_enough(start_redis, version):
    server = start_redis(version=version)
    rights = shown_rights()
    if version == "6.2":
        rights = rights.replace(" +fcall +function|load", "")
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "bus", *rights.split())
    url = server.url(user="bus", password="secret")
    await works(url)
    await everything(url)
    with server.client() as admin:
        assert admin.acl_log() == []


def shown_rights(*, cluster: bool = False) -> str:
    text = (Path(__file__).parents[3] / "docs" / "redis.md").read_text(encoding="utf-8")
    shown = re.search(r"ACL SETUSER bus (on >secret .*?)\n\n", text, re.DOTALL)[1]
    more = re.search(r"a cluster `(.*?)`", text)[1] if cluster else ""
    return " ".join(f"{shown} {more}".split())


@pytest.mark.slow
@pytest.mark.parametrize("version", REDIS_VERSIONS)
@pytest.mark.timeout(120)
async def test_the_rights_that_the_documentation_shows_are_enough_in_a_cluster(start_redis_cluster, version):
    """A client lives past its session's time, wherever the registry is."""
    cluster = start_redis_cluster(version=version, replicas=0, users={"bus": shown_rights(cluster=True)})
    url = cluster.url("redis+cluster", user="bus", password="secret")
    await works(url)
    await everything(url)
    options = {"lease": 0.5, "session_ttl": 1}
    async with opened(url, **options) as transport, opened(url, **options) as other:
        member = await Member.of(transport, "lasting", "lasting")
        await Member.of(other, "lasting", "lasting")  # who would take over
        inbox = await transport.inbox()
        await publish(transport, envelope(channel="lasting"))
        (held,) = await member.fetch()
        slot = transport._servers.slot("nc:{registry}:channels")
        source = cluster.owner("nc:{registry}:channels")
        target = next(node for node in cluster.masters() if node is not source)
        await asyncio.to_thread(move, slot, source, target, cluster)
        await asyncio.sleep(2)
        assert transport._runtime.counters["sessions_lost"] == 0
        assert [each.name for each in (await ack(transport, held)).settled] == ["SETTLED"]
        await publish(other, envelope("answer", channel=inbox.address))
        assert [each.id for each in await inbox.fetch(5.0)] == ["answer"]
    for node in cluster.nodes:
        with node.client() as admin:
            assert admin.acl_log() == []


async def everything(url: str) -> None:
    """What a bus does now and then."""
    async with opened(url) as transport:
        await transport.declare(ChannelConfig("kept", capacity=2, overflow="drop_old", retention=Retention(bytes=99)))
        member = await Member.of(transport, pattern="*")
        broadcast = await Member.of(transport, None, pattern="kept")
        more = [envelope(channel="kept", key="k"), envelope(channel="kept", priority=3), envelope(channel="kept")]
        await publish(transport, *more, envelope(channel="kept", delay_ns=10**9))
        got = await member.fetch()
        await transport.commit((), [Settlement(got[0], Outcome.NACK)])
        await transport.commit((), [Settlement(each, Outcome.RELEASE) for each in got[1:]])
        await transport.places.browse("kept", "beginning", 10)
        await transport.stats()
        await member.consumer.seek(1, "beginning")
        await member.drain()
        await broadcast.consumer.close()
        other = await transport.consume(Group("other"))
        await other.update([Interest(id=1, pattern="kept", start="beginning")])
        base = transport.client.layout.base("kept")
        await transport.client.channel("reclaim", base, "nobody", 1)
        await transport.client.channel("tidy", base)
        inbox = transport.client.layout.base("_inbox.deaf.1")
        await transport.client.ask(INBOX, f"{inbox}:open", "open", inbox, "deaf", 60_000)
        assert await publish(transport, envelope(channel="_inbox.deaf.1")) == [PublishStatus.STORED]
        await transport.client.ask(INBOX, f"{inbox}:open", "take", inbox, "deaf", 60_000)
        await transport.remove(GroupRef("g"))
        await transport.remove(ChannelRef("kept"))


@pytest.mark.parametrize("lacking", [each.removeprefix("+") for each in COMMANDS.split()])
@pytest.mark.slow
async def test_each_right_is_needed(start_redis, caplog, lacking):
    """The server refuses this command and no other, and says so to whoever wanted it, or in the log."""
    if lacking in ("script|load", "evalsha", "select"):
        pytest.skip("for servers before 7.0, and other databases than 0")
    server = start_redis(users=rules(" ".join(each for each in COMMANDS.split() if each != f"+{lacking}")))
    url, error = server.url(user="bus", password=SECRET), None
    try:
        await works(url)
        await everything(url)
    except (TransportError, AssertionError) as raised:
        error = raised
    with server.client() as admin:
        refused = {each["object"] for each in admin.acl_log()}
    assert refused
    assert all(each == lacking or each.startswith(f"{lacking}|") for each in refused), refused
    if lacking == "function|load":
        assert error is None, "it goes on with scripts"
        return
    says = rf"{server.port} refuses: .*('{re.escape(lacking)}' command|the script can't run this command)"
    told = f"{error}\n{caplog.text}"
    assert re.search(says, told), told


@pytest.mark.parametrize("lacking", ["script|load", "info", "subscribe"])
async def test_who_lacks_a_right_is_told_at_once(start_redis, lacking):
    commands = " ".join(each for each in COMMANDS.split() if each != f"+{lacking}" and "function" not in each)
    server = start_redis(users=rules(commands))
    await refused(
        server.url(user="bus", password=SECRET), RedisRefused, rf"127.0.0.1:{server.port} refuses: .*{lacking}"
    )


@pytest.mark.parametrize("lacking", ["xadd", "publish", "hset"])
@pytest.mark.parametrize("version", REDIS_VERSIONS)
async def test_who_lacks_a_right_of_the_work_is_told_when_it_is_needed(start_redis, version, lacking):
    commands = " ".join(each for each in COMMANDS.split() if each != f"+{lacking}")
    server = start_redis(version=version, users=rules(commands))
    async with opened(server.url(user="bus", password=SECRET)) as transport:
        with pytest.raises(RedisRefused, match=rf"{server.port} refuses: .*(user executing the script|'{lacking}')"):
            await publish(transport)


@pytest.mark.parametrize(
    ("rights", "says"),
    [
        ("~other:* &* +@all", "key"),
        ("~* &other:* +@all", "channel"),
        ("~* &* +@all -@scripting", "script"),
        ("off ~* &* +@all", "WRONGPASS"),
    ],
)
async def test_who_may_not_use_our_keys_or_topics_is_told_at_once(start_redis, rights, says):
    server = start_redis(users={"bus": f"on >{SECRET} resetchannels {rights}"})
    error = await refused(server.url(user="bus", password=SECRET), RedisRefused, rf"{server.port} refuses: .*({says})")
    assert SECRET not in str(error)


# TLS

HUNG_UP = "(reset by peer|[Cc]losed)"
"""All that a server says who expected something else."""


async def test_tls_with_an_authority_of_one_s_own(start_redis):
    server = start_redis(tls=True)
    await works(server.url(), tls_ca=server.certificates.ca)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_tls_to_all_servers_of_a_cluster(start_redis_cluster):
    cluster = start_redis_cluster(replicas=0, tls=True)
    ca = cluster.certificates.ca
    await works(cluster.url("rediss+cluster"), tls_ca=ca)
    async with opened(cluster.url("rediss+cluster"), tls_ca=ca) as transport:
        sent = [envelope(channel=f"orders.{number}") for number in range(12)]
        assert len({cluster.owner(f"nc:{{{each.channel}}}:meta").port for each in sent}) > 1
        member = await Member.of(transport, pattern="orders.*")
        await publish(transport, *sent)
        await member.drain(*(each.id for each in sent))
    await refused(cluster.url("rediss+cluster"), TransportError, "certificate")
    await refused(cluster.url("redis+cluster"), Unavailable, f"127.0.0.1.*{HUNG_UP}", timeout=1)


async def test_a_certificate_of_nobody_we_trust_is_refused(start_redis, tmp_path):
    from tests.servers.certificates import Certificates

    server = start_redis(tls=True)
    began = time.monotonic()
    await refused(server.url(), TransportError, "certificate")
    await refused(server.url(), TransportError, "certificate", tls_ca=Certificates.make(tmp_path / "other").ca)
    assert time.monotonic() - began < 3


async def test_a_certificate_for_another_host_is_refused(start_redis):
    server = start_redis(tls=True, options={"bind": "127.0.0.1 127.0.0.2"})
    url = f"rediss://127.0.0.2:{server.port}"
    await refused(url, TransportError, "certificate", tls_ca=server.certificates.ca)


async def test_there_is_no_way_back_to_plain_text(start_redis, redis_server):
    began = time.monotonic()
    await refused(redis_server.url("rediss"), Unavailable, "SSL|with TLS as the URL says", timeout=1)
    server = start_redis(tls=True)
    await refused(server.url("redis"), Unavailable, f"127.0.0.1:{server.port}: .*{HUNG_UP}", timeout=1)
    assert time.monotonic() - began < 5


async def test_a_client_s_certificate(start_redis):
    server = start_redis(tls=True)
    made = server.certificates
    with server.client() as admin:
        admin.config_set("tls-auth-clients", "yes")
    await works(server.url(), tls_ca=made.ca, tls_cert=made.client, tls_key=made.client_key)
    says = f"127.0.0.1:{server.port}: .*(certificate required|{HUNG_UP}.* it wants .tls_cert= and tls_key=)"
    await refused(server.url(), Unavailable, says, tls_ca=made.ca, timeout=1)


# Places


async def test_a_unix_socket(redis_server):
    await works(redis_server.url("redis+unix"), prefix=new_prefix())


async def test_a_unix_socket_that_is_not_there(tmp_path):
    await refused(f"redis+unix://{tmp_path}/none.sock", Unavailable, "none.sock")


@pytest.mark.parametrize("where", ["redis", "redis+unix"])
async def test_the_number_of_a_database(start_redis, where):
    server = start_redis(unixsocket=True)
    url = server.url(where)

    def numbered(database: int) -> str:
        return with_options(url, database=database) if where == "redis+unix" else f"{url}/{database}"

    await works(numbered(3))
    with server.client(db=3) as three, server.client() as zero:
        assert three.keys("nc:*")
        assert zero.keys("*") == []
    await refused(numbered(99), TransportError, "DB index")


@pytest.mark.parametrize("version", REDIS_VERSIONS)
async def test_two_prefixes_do_not_see_each_other(start_redis, version):
    server = start_redis(version=version)
    async with opened(server.url(), prefix="one") as one, opened(server.url(), prefix="two") as two:
        members = [await Member.of(each) for each in (one, two)]
        sent = envelope("same"), envelope("same", body=b'"other"')
        assert await publish(one, sent[0]) == await publish(two, sent[1])
        assert [each.envelope.body for each in await members[0].drain("same")] == [b'"x"']
        assert [each.envelope.body for each in await members[1].drain("same")] == [b'"other"']
        assert not one._runtime.told("lost")
        with server.client() as admin:
            assert {key.partition(":")[0] for key in admin.keys("*")} == {"one", "two"}


@pytest.mark.parametrize(("key", "value"), [("channels", "text"), ("format", "7"), ("sessions", "text")])
async def test_keys_of_somebody_else(redis_server, key, value):
    prefix = new_prefix()
    with redis_server.client() as admin:
        admin.set(f"{prefix}:{{registry}}:{key}", value)
    says = rf"keys under '{prefix}' in Redis at 127.0.0.1:{redis_server.port} are not a bus's.* use another \?prefix="
    await refused(redis_server.url(), NotOurs, says, prefix=prefix)
    with redis_server.client() as admin:
        assert admin.get(f"{prefix}:{{registry}}:{key}") == value


async def test_a_channel_s_keys_of_somebody_else(redis_server):
    prefix = new_prefix()
    with redis_server.client() as admin:
        admin.set(f"{prefix}:{{orders}}:meta", "text")
    async with opened(redis_server.url(), prefix=prefix) as transport:
        with pytest.raises(TransportError, match="WRONGTYPE") as caught:
            await publish(transport)
        assert not isinstance(caught.value, Unavailable)
        assert [each.name for each in await publish(transport, envelope(channel="other"))] == ["STORED"]


# Nobody there


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "rediss"])
async def test_no_server(scheme):
    began = time.monotonic()
    port = free_port()
    await refused(
        f"{scheme}://127.0.0.1:{port}", Unavailable, f"127.0.0.1:{port}.*(refused|Connect|connect).*check that"
    )
    assert time.monotonic() - began < 1


async def test_no_such_host():
    await refused("redis://no.such.host.invalid", Unavailable, "no.such.host.invalid", timeout=2)


async def test_a_server_that_says_nothing(start_redis):
    server = start_redis()
    server.pause()
    began = time.monotonic()
    await refused(server.url(), Unavailable, "127.0.0.1", timeout=0.5)
    assert time.monotonic() - began < 2


async def test_no_redis_cluster(redis_server):
    await refused(redis_server.url("redis+cluster"), TransportError, "cluster support disabled")


async def test_nothing_is_left_behind_when_it_cannot_be_opened(start_redis):
    server = start_redis(users=rules(COMMANDS.replace("+subscribe", "")))
    with server.client() as admin:
        before = len(admin.client_list())
        await refused(server.url(user="bus", password=SECRET), RedisRefused, "subscribe")
        await eventually(lambda: len(admin.client_list()) == before, "the connections to be closed")


def test_without_the_packages():
    """In a process of its own, where importing them fails."""
    for package in ("redis", "hiredis"):
        code = (
            f"import sys; sys.modules[{package!r}] = None\n"
            "from neuralcore import MessageBus, MissingExtra\n"
            "try: MessageBus('redis://localhost')\n"
            "except MissingExtra as error: print(error)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        said = f"the package '{package}' is not installed: pip install 'neuralcore-runtime[redis]'"
        assert done.stdout.strip() == said, done.stderr


def test_it_talks_to_the_versions_that_we_say():
    assert tuple(map(int, redis.__version__.split(".")[:2])) >= (8, 1)
