"""Others on the same server: redis-cli, redis-py, and what speaks CloudEvents."""

from __future__ import annotations

import json
import subprocess
from datetime import datetime, timezone

import pytest
import redis
from cloudevents.core.bindings import http
from cloudevents.core.v1.event import CloudEvent

from neuralcore import MessageBus
from neuralcore_transports.redis.entries import envelope_of, fields_of
from tests.servers.missing import need
from tests.transports.redis.clients import Member, ack, envelope, new_prefix, opened, publish

JSON = "application/json"


@pytest.fixture
def prefix():
    return new_prefix()


@pytest.fixture
def stream(prefix):
    return f"{prefix}:{{orders}}:p:50"


@pytest.fixture
def cli(redis_server):
    need("redis-cli")

    def run(*command: str) -> str:
        done = subprocess.run(
            ["redis-cli", "-p", str(redis_server.port), *command], capture_output=True, text=True, check=True
        )
        return done.stdout

    return run


# What others write


async def test_a_plain_entry_is_a_raw_payload(redis_server, cli, prefix, stream):
    async with opened(redis_server.url(), prefix=prefix, poll=0.1) as transport:
        member = await Member.of(transport)
        await publish(transport, envelope("first"))
        await member.drain("first")
        id = cli("XADD", stream, "*", "data", "hello").strip()
        (got,) = await member.fetch()
        assert (got.envelope.id, got.envelope.body, got.envelope.priority) == (id, b"hello", 50)
        assert got.envelope.content_type == "application/octet-stream"
        assert got.envelope.timestamp_ns == int(id.partition("-")[0]) * 10**6
        assert [each.name for each in (await ack(transport, got)).settled] == ["SETTLED"]
        assert cli("XLEN", stream).strip() == "0"
        await publish(transport, envelope("last"))
        await member.drain("last")


async def test_fields_of_somebody_s_own_are_an_object(redis_server, cli, prefix, stream):
    async with MessageBus(f"{redis_server.url()}?prefix={prefix}&poll=0.1") as bus:  # noqa: SIM117 - needs the bus
        async with bus.stream("orders", group="g") as messages:
            await bus.publish("orders", "first")
            assert (await anext(messages)).payload == "first"
            cli("XADD", stream, "*", "name", "Ada", "age", "36")
            got = await anext(messages)
            assert got.payload == {"name": "Ada", "age": "36"}


async def test_an_event_of_somebody_else(redis_server, cli, prefix, stream):
    """Who writes before there is a bus makes the stream only: it is read once somebody has made the channel."""
    time = "2026-03-04T06:06:07.5+01:00"
    fields = ["ce_specversion", "1.0", "ce_id", "7", "ce_source", "/shop", "ce_type", "created", "ce_time", time]
    fields += ["ce_partitionkey", "ada", "content-type", "application/json", "traceparent", "00-1", "data", '{"n":1}']
    cli("XADD", stream, "*", *fields)
    async with opened(redis_server.url(), prefix=prefix) as transport:
        await transport.client.ensure("orders")
        member = await Member.of(transport)
        (got,) = await member.fetch()
        found = got.envelope
        assert (found.id, found.key, found.body) == ("7", "ada", b'{"n":1}')
        moment = datetime.fromtimestamp(found.timestamp_ns / 1e9, timezone.utc)
        assert moment == datetime(2026, 3, 4, 5, 6, 7, 500_000, tzinfo=timezone.utc)
        assert found.headers == {"traceparent": "00-1"}


@pytest.mark.parametrize(
    "id",
    [
        "99999999999999-5",
        pytest.param("18446744073709551615-1", marks=pytest.mark.xfail(reason="Lua's numbers end at 2**53")),
    ],
)
async def test_an_id_of_the_future_does_not_stop_publishers(redis_server, cli, prefix, stream, id):
    async with opened(redis_server.url(), prefix=prefix, poll=0.1) as transport:
        member = await Member.of(transport)
        await publish(transport, envelope("first"))
        await member.drain("first")
        cli("XADD", stream, id, "data", "hello")
        assert [each.envelope.body for each in await member.drain(id)] == [b"hello"]
        assert [each.name for each in await publish(transport, envelope("after"), envelope("again"))] == ["STORED"] * 2
        got = await member.drain("after", "again")
        assert [each.envelope.id for each in got] == ["after", "again"]


async def test_entries_that_are_no_messages_hold_nobody_up(redis_server, cli, prefix, stream):
    got: list[object] = []
    async with MessageBus(f"{redis_server.url()}?prefix={prefix}&poll=0.1") as bus:  # noqa: SIM117 - needs the bus
        async with bus.stream("orders", group="g") as messages:
            await bus.publish("orders", "first")
            got.append((await anext(messages)).payload)
            cli("XADD", stream, "*", "ce_id", "bad-time", "ce_time", "yesterday", "data", "1")
            with redis_server.client() as admin:
                admin.xadd(stream, {"ce_id": b"\xff", "data": "1"})
            await bus.publish("orders", "last")
            got.append((await anext(messages)).payload)
    assert got == ["first", "last"]


# What others read


async def test_a_message_can_be_read_with_redis_cli(redis_server, cli, prefix, stream):
    async with MessageBus(f"{redis_server.url()}?prefix={prefix}") as bus:
        id = await bus.publish("orders", {"name": "Ada"}, key="k", headers={"tenant": "x"}, content_type=JSON)
    shown = cli("--json", "XRANGE", stream, "-", "+")
    ((entry, fields),) = json.loads(shown)
    found = dict(zip(fields[::2], fields[1::2], strict=True))
    assert entry.endswith("-0")
    assert found.pop("ce_time").startswith("20")
    assert found.pop("ce_source").startswith("urn:neuralcore:bus:")
    assert found == {
        "ce_specversion": "1.0",
        "ce_id": id,
        "ce_type": "orders",
        "ce_partitionkey": "k",
        "content-type": "application/json",
        "tenant": "x",
        "data": '{"name":"Ada"}',
    }


async def test_redis_s_own_tools_show_groups_and_what_is_in_flight(redis_server, prefix, stream):
    async with opened(redis_server.url(), prefix=prefix) as transport:
        member = await Member.of(transport, "mail")
        await publish(transport, *(envelope() for _ in range(5)))
        held = await member.fetch(2)
        with redis_server.client() as admin:
            (group,) = admin.xinfo_groups(stream)
            assert (group["name"], group["pending"]) == ("mail", 2)
            pending = admin.xpending(stream, "mail")
            assert pending["pending"] == 2
            assert [each["pending"] for each in pending["consumers"]] == [2]
            entries = admin.xpending_range(stream, "mail", "-", "+", 10)
            assert {each["message_id"] for each in entries} == {each.lease.entry for each in held}
            await ack(transport, *held)
            assert admin.xpending(stream, "mail")["pending"] == 0
            assert admin.xlen(stream) == 3


async def test_a_plain_reader_beside_us(redis_server, prefix, stream):
    """It has no group of ours, and disturbs nobody."""
    with redis_server.client() as reader:
        async with opened(redis_server.url(), prefix=prefix) as transport:
            member = await Member.of(transport)
            await publish(transport, envelope("one"), envelope("two"))
            ((_, entries),) = reader.xread({stream: "0"})
            assert [fields["ce_id"] for _, fields in entries] == ["one", "two"]
            await member.drain("one", "two")
            await publish(transport, envelope("three"))
            ((_, entries),) = reader.xread({stream: entries[-1][0]}, block=1000)
            assert [fields["data"] for _, fields in entries] == ['"x"']


async def test_a_group_of_somebody_else_beside_ours(redis_server, prefix, stream):
    """It gets what is there until our groups have settled it."""
    with redis_server.client() as other:
        other.xgroup_create(stream, "theirs", mkstream=True)
        async with opened(redis_server.url(), prefix=prefix) as transport:
            member = await Member.of(transport)
            await publish(transport, envelope("one"))
            ((_, entries),) = other.xreadgroup("theirs", "me", {stream: ">"})
            assert [fields["ce_id"] for _, fields in entries] == ["one"]
            assert [each.envelope.id for each in await member.drain("one")] == ["one"]
            assert set((await transport.stats())["orders"].lag) == {"g"}
            assert other.xack(stream, "theirs", entries[0][0]) == 1


def test_the_client_library_is_redis_py():
    assert redis.__version__


# CloudEvents


def test_the_sdk_reads_our_fields_as_an_event_in_binary_mode():
    sent = envelope(
        "7", channel="orders.new", body=b'{"n":1}', timestamp_ns=1_772_600_767_123_456_789, key="ada",
        correlation_id="c", headers={"tenant": "x"},
    )  # fmt: skip
    fields = fields_of(sent, "urn:neuralcore:bus:x")
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    body = named.pop("data")
    headers = {name.replace("ce_", "ce-", 1): value for name, value in named.items()}
    event = http.from_binary_event(http.HTTPMessage(headers=headers, body=body))
    assert (event.get_id(), event.get_type(), event.get_source()) == ("7", "orders.new", "urn:neuralcore:bus:x")
    assert event.get_data() == {"n": 1}
    assert event.get_time().isoformat().startswith("2026-03-04T05:06:07.123456")
    assert event.get_extension("partitionkey") == "ada"
    assert event.get_extension("nccorrelationid") == "c"


def test_we_read_an_event_that_the_sdk_writes_in_binary_mode():
    attributes = {
        "id": "7",
        "source": "/shop",
        "type": "created",
        "specversion": "1.0",
        "time": datetime(2026, 3, 4, 5, 6, 7, 120_000, tzinfo=timezone.utc),
        "datacontenttype": "application/json",
        "partitionkey": "ada",
        "expirytime": "2026-03-05T00:00:00Z",
    }
    message = http.to_binary_event(CloudEvent(attributes=attributes, data={"n": 1}))
    fields: list[bytes] = []
    for name, value in message.headers.items():
        fields += (name.replace("ce-", "ce_", 1).lower().encode(), value.encode())
    body = message.body if isinstance(message.body, bytes) else message.body.encode()
    found = envelope_of("orders", 50, "1-0", [*fields, b"data", body])
    assert (found.id, found.key, found.content_type) == ("7", "ada", "application/json")
    assert json.loads(found.body) == {"n": 1}
    assert found.timestamp_ns == 1_772_600_767_120_000_000
    assert found.expires_at_ns == 1_772_668_800_000_000_000
    assert found.headers == {}
