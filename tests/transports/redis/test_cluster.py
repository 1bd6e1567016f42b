"""What is peculiar to a cluster: several slots, servers that die, slots that move."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections import Counter

import pytest

from neuralcore.messaging.errors import TransportError, Unavailable
from neuralcore.messaging.transport import Outcome, PublishStatus, Settlement, SettleStatus
from tests.transports.redis.clients import Member, ack, envelope, eventually, new_prefix, opened, publish

STORED, DUPLICATE = PublishStatus.STORED, PublishStatus.DUPLICATE
CHANNELS = [f"orders.{number}" for number in range(12)]

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def prefix():
    return new_prefix()


@pytest.fixture
def url(redis_cluster):
    return redis_cluster.url("redis+cluster")


def ids_in(cluster, prefix: str, channel: str) -> list[str]:
    with cluster.client() as admin:
        return [fields["ce_id"] for _, fields in admin.xrange(f"{prefix}:{{{channel}}}:p:50")]


# Commits


async def test_a_commit_over_many_slots(url, prefix):
    async with opened(url, prefix=prefix) as transport:
        member = await Member.of(transport, pattern="orders.*")
        sent = [envelope(channel=channel) for channel in CHANNELS for _ in range(3)]
        assert await publish(transport, *sent) == [STORED] * len(sent)
        assert await publish(transport, *sent) == [DUPLICATE] * len(sent)
        got = await member.drain(*(each.id for each in sent))
        assert Counter(each.envelope.id for each in got) == Counter(each.id for each in sent)
        for channel in CHANNELS:
            its = [each.envelope.id for each in got if each.envelope.channel == channel]
            assert its == [each.id for each in sent if each.channel == channel]


async def test_an_answer_that_is_lost_is_one_slot_s_alone(redis_cluster, prefix):
    """What is refused in one place is no business of another."""
    async with opened(redis_cluster.url("redis+cluster"), prefix=prefix) as transport:
        good, bad = envelope("good", channel="a"), envelope("bad", channel="no good name")
        result = await transport.commit([bad, good])
        assert list(result.published) == [PublishStatus.REFUSED, STORED]
        assert "no good name" in result.reasons[0]


@pytest.mark.parametrize("duplicate", [False, True])
async def test_a_settlement_after_a_publish_in_another_slot(url, prefix, duplicate):
    async with opened(url, prefix=prefix) as transport:
        member = await Member.of(transport)
        await publish(transport, envelope("here"))
        (got,) = await member.fetch()
        there = envelope("there", channel="elsewhere")
        if duplicate:
            await publish(transport, there)
        result = await transport.commit([there], [Settlement(got, Outcome.ACK, after=0)])
        assert list(result.published) == [DUPLICATE if duplicate else STORED]
        assert list(result.settled) == [SettleStatus.SETTLED]
        assert (await transport.stats())["orders"].depth == 0


async def test_it_is_skipped_when_the_publish_is_refused(url, prefix):
    async with opened(url, prefix=prefix) as transport:
        member = await Member.of(transport)
        await publish(transport, envelope("here"))
        (got,) = await member.fetch()
        result = await transport.commit(
            [envelope("there", channel="no good name")], [Settlement(got, Outcome.ACK, after=0)]
        )
        assert list(result.settled) == [SettleStatus.SKIPPED]
        assert list((await ack(transport, got)).settled) == [SettleStatus.SETTLED]


async def test_a_dead_letter_goes_with_its_settlement_in_one_step(url, prefix):
    async with opened(url, prefix=prefix) as transport:
        member = await Member.of(transport)
        await publish(transport, envelope("poison"))
        (got,) = await member.fetch()
        steps = []
        script = transport._servers.script

        async def counted(lane, *arguments, **options):
            if lane == "commit":
                steps.append(arguments)
            return await script(lane, *arguments, **options)

        await publish(transport, envelope("before", channel="_dlq.orders"))
        transport._servers.script = counted
        letter = envelope("letter", channel="_dlq.orders")
        result = await transport.commit([letter], [Settlement(got, Outcome.ACK, after=0)])
        assert (list(result.published), list(result.settled)) == ([STORED], [SettleStatus.SETTLED])
        assert len(steps) == 1


# Topics


async def test_a_bell_is_heard_through_any_node(redis_cluster, prefix):
    """The listener is connected to one node, and what is published in all of them is heard."""
    async with opened(redis_cluster.url("redis+cluster"), prefix=prefix, poll=60, lease=60) as transport:
        members = {}
        for channel in CHANNELS[:6]:
            await publish(transport, envelope(f"{channel}-first", channel=channel))
            members[channel] = await Member.of(transport, pattern=channel)
            await members[channel].drain(f"{channel}-first")
        owners = {redis_cluster.owner(f"{prefix}:{{{channel}}}:meta").port for channel in members}
        assert len(owners) > 1
        async with opened(redis_cluster.url("redis+cluster", node=1), prefix=prefix) as other:
            for channel, member in members.items():
                waiting = asyncio.ensure_future(member.fetch(timeout=5))
                await asyncio.sleep(0.05)
                await publish(other, envelope(f"{channel}-second", channel=channel))
                (got,) = await waiting
                assert got.envelope.id == f"{channel}-second"


async def test_a_request_through_other_nodes(redis_cluster, prefix):
    async with (
        opened(redis_cluster.url("redis+cluster"), prefix=prefix, poll=60) as asking,
        opened(redis_cluster.url("redis+cluster", node=2), prefix=prefix) as answering,
    ):
        for number in range(6):
            inbox = await asking.inbox()
            waiting = asyncio.ensure_future(inbox.fetch(5.0))
            await asyncio.sleep(0.01)
            await publish(answering, envelope(f"answer-{number}", channel=inbox.address))
            assert [each.id for each in await waiting] == [f"answer-{number}"]


# Faults


class Load:
    """Publishes to all channels, and settles what comes; what was acknowledged must arrive."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.prefix = prefix
        self.stored: set[str] = set()
        self.unsure: set[str] = set()
        self.got: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._ended = asyncio.Event()

    async def __aenter__(self) -> Load:
        self._open = opened(self.url, prefix=self.prefix, poll=0.3, timeout=2, patience=20, lease=2)
        self.transport = await self._open.__aenter__()
        self.member = await Member.of(self.transport, pattern="orders.*")
        await publish(self.transport, *(envelope(f"{channel}-0", channel=channel) for channel in CHANNELS))
        self.stored |= {f"{channel}-0" for channel in CHANNELS}
        self._tasks = [asyncio.ensure_future(self._publish(channel)) for channel in CHANNELS]
        self._tasks.append(asyncio.ensure_future(self._consume()))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ended.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._open.__aexit__(None, None, None)

    async def _publish(self, channel: str) -> None:
        number = 0
        while not self._ended.is_set():
            number += 1
            sent = envelope(f"{channel}-{number}", channel=channel)
            while True:
                try:
                    (status,) = await publish(self.transport, sent)
                except TransportError as error:
                    if not isinstance(error, Unavailable):
                        self.wrong.append(f"a publish raised {error!r}")
                    self.unsure.add(sent.id)
                    await asyncio.sleep(0.05)
                    continue
                if status in (STORED, DUPLICATE):
                    self.stored.add(sent.id)
                    if status is DUPLICATE and sent.id not in self.unsure:
                        self.wrong.append(f"{sent.id} is called a duplicate")
                    break
                if status is not PublishStatus.UNKNOWN:
                    self.wrong.append(f"{sent.id} is {status}")
                    break
                self.unsure.add(sent.id)
            await asyncio.sleep(0.01)

    async def _consume(self) -> None:
        while True:
            try:
                found = await self.member.fetch(timeout=1)
                self.got.update(each.envelope.id for each in found)
                await ack(self.transport, *found)
            except Unavailable:
                await asyncio.sleep(0.05)
            except Exception as error:
                self.wrong.append(f"a fetch raised {error!r}")
                await asyncio.sleep(0.05)

    async def goes_on(self, more: int = 200) -> None:
        """New messages in every channel are stored, and arrive."""
        before = {channel: self._last(channel) for channel in CHANNELS}

        def moved() -> bool:
            return all(self._last(channel) > before[channel] + 5 for channel in CHANNELS)

        await eventually(moved, f"all channels to go on: {before}", 30)

    def _last(self, channel: str) -> int:
        return max(int(id.rpartition("-")[2]) for id in self.got if id.startswith(f"{channel}-"))

    async def settled(self) -> None:
        self._ended.set()
        await asyncio.wait(self._tasks[:-1], timeout=30)
        await eventually(lambda: self.stored <= self.got.keys(), "what was stored to arrive", 30)


def lost(load: Load) -> list[str]:
    return sorted(load.stored - load.got.keys())


@pytest.mark.slow
async def test_a_master_dies_while_all_publish_and_consume(redis_cluster, url, prefix):
    async with Load(url, prefix) as load:
        await eventually(lambda: len(load.got) > 100, "traffic")
        dying = redis_cluster.owner(f"{prefix}:{{{CHANNELS[0]}}}:meta")
        replica = await asyncio.to_thread(redis_cluster.replica_of, dying)
        assert replica
        dying.kill()
        await asyncio.to_thread(redis_cluster.wait_ok, without=[dying])
        await load.goes_on()
        try:
            await load.settled()
        except AssertionError:
            # A replica may lack the end: then so many have to be reported.
            assert len(lost(load)) < 20
            assert load.transport._runtime.told("data lost"), lost(load)
        assert load.wrong == []


@pytest.mark.slow
async def test_the_registry_s_master_dies(redis_cluster, url, prefix):
    async with Load(url, prefix) as load:
        await eventually(lambda: len(load.got) > 100, "traffic")
        dying = redis_cluster.owner(f"{prefix}:{{registry}}:channels")
        dying.kill()
        await asyncio.to_thread(redis_cluster.wait_ok, without=[dying])
        await load.goes_on()
        await publish(load.transport, envelope(channel="orders.new"))
        await eventually(load.transport.channels, "the registry")
        assert "orders.new" in await load.transport.channels()
        assert load.wrong == []


@pytest.mark.slow
async def test_slots_are_moved_while_all_publish_and_consume(redis_cluster, url, prefix):
    """There and back again."""
    async with Load(url, prefix) as load:
        await eventually(lambda: len(load.got) > 100, "traffic")
        slot = load.transport._servers.slot(load.transport._layout.base(CHANNELS[0]))
        source = redis_cluster.owner(f"{prefix}:{{{CHANNELS[0]}}}:meta")
        target = next(node for node in redis_cluster.masters() if node is not source)
        await asyncio.to_thread(move, slot, source, target, redis_cluster)
        await load.goes_on()
        await asyncio.to_thread(move, slot, target, source, redis_cluster)
        await load.goes_on()
        await load.settled()
        assert lost(load) == []
        assert load.wrong == []
        assert not load.transport._runtime.told("data lost"), load.transport._runtime.events
        assert [id for id, times in load.got.items() if times > 1] == []


def move(slot: int, source, target, cluster) -> None:
    """As redis-cli does it, slowly: key by key."""
    with source.client() as here, target.client() as there:
        ids = {node.port: client.execute_command("CLUSTER MYID") for node, client in ((source, here), (target, there))}
        there.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source.port])
        here.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target.port])
        while keys := here.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1):
            here.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            time.sleep(0.02)  # of a channel some keys are here, and some there
        for client in (there, here):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[target.port])
        for node in cluster.masters():
            if node not in (source, target):
                with node.client() as client:
                    client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[target.port])
    cluster.wait_ok()


@pytest.mark.slow
async def test_a_reshard_by_redis_cli(redis_cluster, url, prefix):
    async with Load(url, prefix) as load:
        await eventually(lambda: len(load.got) > 100, "traffic")
        source, target, *_ = redis_cluster.masters()
        for here, there in ((source, target), (target, source)):
            await asyncio.to_thread(reshard, here, there)
            await asyncio.to_thread(redis_cluster.wait_ok)
        await load.goes_on()
        await load.settled()
        assert lost(load) == []
        assert load.wrong == []


def reshard(source, target) -> None:
    with source.client() as here, target.client() as there:
        ids = [client.execute_command("CLUSTER MYID") for client in (here, there)]
    command = ["redis-cli", "--cluster", "reshard", f"127.0.0.1:{source.port}", "--cluster-from", ids[0]]
    command += ["--cluster-to", ids[1], "--cluster-slots", "2000", "--cluster-yes"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert not done.returncode, done.stdout[-2000:] + done.stderr


@pytest.mark.slow
async def test_a_replica_that_is_asked_first_leads_to_the_masters(redis_cluster, prefix):
    master = redis_cluster.masters()[0]
    replica = redis_cluster.replica_of(master)
    async with opened(replica.url("redis+cluster"), prefix=prefix) as transport:
        assert await publish(transport, *(envelope(channel=channel) for channel in CHANNELS)) == [STORED] * 12


async def test_one_node_of_the_url_is_enough(redis_cluster, prefix):
    from tests.servers.ports import free_port

    url = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{redis_cluster.nodes[0].port}"
    async with opened(url, prefix=prefix) as transport:
        assert await publish(transport) == [STORED]
