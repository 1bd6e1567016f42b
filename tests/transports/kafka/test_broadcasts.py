"""How many listeners share the reading of a partition, and what becomes of one that could not be begun."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from neuralcore.messaging.errors import Unavailable
from neuralcore.messaging.names import matches
from neuralcore.messaging.transport import Delivery, Demand, Envelope, Interest, Outcome, Settlement
from neuralcore_transports.kafka import broadcast, fan
from neuralcore_transports.kafka.broadcast import Broadcasts
from neuralcore_transports.kafka.poller import Flow, Poller
from neuralcore_transports.kafka.registry import Channel
from tests.transports.kafka.fakes import FakeRecord, a_clock, a_silence, record_of

GONE = KafkaError(KafkaError.OFFSET_OUT_OF_RANGE)
NOT_YET = KafkaException(KafkaError(KafkaError._STATE))
SILENT = Unavailable("kafka", "on purpose")

Place = tuple[str, int]
ORDERS: Place = ("orders", 0)


@dataclass(frozen=True)
class Stored(FakeRecord):
    place: Place = ORDERS
    wrong: KafkaError | None = None

    def __len__(self) -> int:
        return len(self.data or b"")

    def topic(self) -> str:
        return self.place[0]

    def partition(self) -> int:
        return self.place[1]

    def error(self) -> KafkaError | None:
        return self.wrong


class Library:
    """A consumer, and what is stored for it."""

    def __init__(self) -> None:
        self.ends: dict[Place, tuple[int, int]] = {}
        self.at: dict[Place, int] = {}
        self.most = 1000
        """Records of one poll."""
        self.failing: Callable[[], bool] = lambda: False
        """Whether the next seek does."""
        self._paused: set[Place] = set()
        self._gone: set[Place] = set()

    def poll(self, seconds: float) -> Stored | None:
        found = self.consume(1, seconds)
        return found[0] if found else None

    def consume(self, most: int, seconds: float) -> list[Stored]:
        found: list[Stored] = []
        for place in self.at.keys() - self._paused - self._gone:
            low, high = self.ends[place]
            if not low <= self.at[place] <= high:
                self._gone.add(place)
                return [Stored(place=place, wrong=GONE)]
            while self.at[place] < high and len(found) < min(most, self.most):
                found.append(stored(place, self.at[place]))
                self.at[place] += 1
        return found

    def seek(self, place: TopicPartition) -> None:
        if self.failing():
            raise NOT_YET
        self.at[place.topic, place.partition] = place.offset
        self._gone.discard((place.topic, place.partition))

    def pause(self, places: Sequence[TopicPartition]) -> None:
        self._paused.update((each.topic, each.partition) for each in places)

    def resume(self, places: Sequence[TopicPartition]) -> None:
        self._paused.difference_update((each.topic, each.partition) for each in places)

    def get_watermark_offsets(self, place: TopicPartition, timeout: float) -> tuple[int, int]:
        return self.ends[place.topic, place.partition]


def stored(place: Place, offset: int) -> Stored:
    record = record_of(Envelope(id=f"{place}{offset}", channel=place[0], body=str(offset).encode()), offset)
    return Stored(offset, record.data, None, record.given, record.stored, place)


class Reading:
    """The reader, whose thread does something when it is told to."""

    def __init__(self, bench: Bench) -> None:
        self.client = bench.library
        self.poller = Poller(
            lambda: self.client,  # type: ignore[arg-type,return-value]
            bench.call,
            prefetch=bench.options.prefetch,
            name="t",
            silence=a_silence(),
            replaced=lambda: None,
        )
        self.added: list[tuple[Place, int]] = []
        self.failing: Callable[[Place], str] = lambda place: ""
        """``before`` it is read, or ``late``: it is read all the same."""

    def add(self, flow: Flow, offset: int) -> None:
        how = self.failing(flow.key)
        if how == "before":
            raise SILENT
        if flow.key in self.client.at:  # it is assigned already
            raise SILENT
        self.client.at[flow.key] = offset
        self.poller.add(flow)
        self.added.append((flow.key, offset))
        if how == "late":
            raise SILENT

    def remove(self, flow: Flow) -> None:
        if self.poller.remove(*flow.key) is not None:
            del self.client.at[flow.key]


class Bench:
    """The broadcasts of a transport. The loop's calls, and the thread's turns, come when the test says so."""

    def __init__(self, *, prefetch: int = 10) -> None:
        self.options = SimpleNamespace(prefetch=prefetch, timeout=1, dedup_ns=lambda window: 0, dedup_count=0)
        self.clock = a_clock()
        self.running = True
        self.library = Library()
        self.calls: deque[tuple[Callable[..., object], Any]] = deque()
        self.reader = Reading(self)
        self.channels: dict[str, Channel] = {}
        self.registrar = self.registry = self.positions = self.declaring = self
        self.told: list[str] = []
        self.outs: list[Delivery] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.broadcasts: set[Broadcasts] = set()
        self.made = Broadcasts(self)  # type: ignore[arg-type]
        self.interests: dict[int, Interest] = {}
        self.heard: dict[int, list[int]] = {}

    # The transport

    def call(self, what: Callable[..., object], *arguments: Any) -> None:
        self.calls.append((what, arguments))

    async def run(self, what: Callable[..., Any], *arguments: Any) -> Any:
        await asyncio.sleep(0)
        return what(*arguments)

    async def refresh(self) -> None: ...

    async def ensure(self, names: Sequence[str]) -> None: ...

    async def count_partitions(self, names: Collection[str]) -> None:
        for name in names:
            there = [number for topic, number in self.library.ends if topic == name]
            self.channels[name] = Channel(name, len(there))
            self.in_background(self.made.refresh())  # as when the registry has changed

    def created(self, channel: str) -> int:
        return 0

    def covered(self, pattern: str) -> list[Channel]:
        return [channel for name, channel in self.channels.items() if matches(pattern, name)]

    def places(self, channel: Channel) -> list[tuple[int, Place]]:
        return [(0, (channel.channel, number)) for number in range(channel.partitions)]

    def offsets(self, channels: Sequence[Channel], cursor: str) -> dict[Place, int]:
        places = [place for channel in channels for _, place in self.places(channel)]
        return {place: self.library.ends[place][1] if cursor == "new" else int(cursor) for place in places}

    def in_background(self, work: Any) -> None:
        self.tasks.append(asyncio.ensure_future(work))

    def data_lost(self, channel: str, detail: str) -> None:
        self.told.append(detail)

    def lost(self, deliveries: Sequence[Delivery]) -> None:
        self.outs += deliveries

    def count(self, name: str) -> None: ...

    # What happens

    def channel(self, name: str, *ends: int, partitions: int = 1) -> None:
        self.channels[name] = Channel(name, partitions)
        for number in range(partitions):
            self.library.ends.setdefault((name, number), (0, ends[number] if ends else 0))

    async def listen(self, id: int, start: int | str, pattern: str = "orders") -> None:
        """As a feeder: with all that it has, and again when that may help."""
        self.interests[id] = Interest(id=id, pattern=pattern, start=str(start))
        self.heard.setdefault(id, [])
        await self.update()

    async def update(self) -> None:
        await self.made.update(list(self.interests.values()))

    def turn(self) -> None:
        self.reader.poller._turn()

    def hear(self) -> None:
        """One of the loop's calls."""
        if self.calls:
            what, arguments = self.calls.popleft()
            what(*arguments)

    async def take(self, id: int, limit: int = 1000) -> list[Delivery]:
        found = list(await self.made.fetch({id: Demand(limit)}, 0))
        self.heard[id] += [int(delivery.envelope.body) for delivery in found]
        await self.made.settle([Settlement(delivery, Outcome.ACK) for delivery in found])
        return found

    async def until_read(self, partitions: int) -> None:
        deadline = asyncio.get_running_loop().time() + 10
        while len(self.reader.added) < partitions:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.001)

    async def settle_down(self, *ids: int) -> None:
        """Until nothing comes any more. Those named take what there is."""
        quiet = 0
        while quiet < 20:
            self.turn()
            moved = bool(self.calls)
            while self.calls:
                self.hear()
            for id in ids:
                moved = bool(await self.take(id)) or moved
            await asyncio.sleep(0.001)
            quiet = 0 if moved else quiet + 1


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fan, "_SOON", 0.001)
    monkeypatch.setattr(broadcast, "_AGAIN", 0.001)
    monkeypatch.setattr(broadcast, "_LOOK", 0.005)
    monkeypatch.setattr("neuralcore_transports.kafka.poller._BYTES", 10**9)


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.channel("orders", 500)
    return made


# Reading again


async def test_two_that_have_room_at_once_both_hear_what_they_missed(bench):
    """The one that is further on does not take the reader past what the other has not read."""
    bench.library.most = 10
    await bench.listen(1, 100)
    await bench.listen(2, 300)
    await bench.settle_down()
    await bench.take(1)
    await bench.take(2)  # nothing is read between the two
    await bench.settle_down(1, 2)
    assert bench.heard == {1: list(range(100, 500)), 2: list(range(300, 500))}


async def test_all_that_lost_their_place_go_on_where_they_were(bench):
    """Who is still within what is kept stays there, who is before that goes to its beginning, who is beyond to its
    end.
    """
    for id, start in ((1, 50), (2, 120), (3, 300), (4, 600)):
        await bench.listen(id, start)
    bench.library.ends[ORDERS] = 100, 500
    await bench.settle_down(1, 2, 3, 4)
    bench.library.ends[ORDERS] = 100, 505
    await bench.settle_down(1, 2, 3, 4)
    assert bench.heard[1] == list(range(100, 505))
    assert bench.heard[2] == list(range(120, 505))
    assert bench.heard[3] == list(range(300, 505))
    assert bench.heard[4] == list(range(500, 505))
    assert [text.partition(" of ")[0] for text in bench.told] == ["a broadcast was at 50", "a broadcast was at 600"]


async def test_a_seek_that_fails_is_tried_where_it_is_wanted_by_then(bench):
    failing = True
    bench.library.failing = lambda: failing
    await bench.listen(1, 400)
    await bench.listen(2, 300)
    bench.turn()
    await bench.made.seek(2, "200")
    await bench.listen(3, 250)
    bench.turn()
    bench.hear()
    failing = False
    await bench.settle_down(1, 2, 3)
    assert bench.heard == {1: list(range(400, 500)), 2: list(range(200, 500)), 3: list(range(250, 500))}


async def test_a_partition_that_was_paused_goes_on_where_somebody_wants_to_read_again(bench):
    """Not where it was when it was paused."""
    await bench.listen(1, 0)
    bench.turn()  # more than may wait here
    await bench.listen(2, 5)
    await bench.settle_down(2)
    assert bench.heard[2] == list(range(5, 500))


@pytest.mark.parametrize("seed", range(30))
async def test_everybody_hears_everything_from_its_start_on_once_and_in_order(seed):
    """Whatever has room when, however late the reader goes back, and however often that fails."""
    chance = random.Random(seed)
    bench = Bench(prefetch=chance.choice((3, 10, 40)))
    bench.channel("orders", chance.randint(0, 50))
    bench.library.failing = lambda: chance.random() < 0.3
    end, starts = bench.library.ends[ORDERS][1], {}
    for _ in range(400):
        bench.library.most = chance.choice((1, 3, 50))
        what = chance.choices(("turn", "hear", "take", "publish", "listen", "seek", "wait"), (9, 9, 9, 3, 1, 1, 1))[0]
        if what == "turn":
            bench.turn()
        elif what == "hear":
            bench.hear()
        elif what == "take" and starts:
            for id in chance.sample(sorted(starts), chance.randint(1, len(starts))):
                await bench.take(id, chance.choice((1, 5, 100)))
        elif what == "publish":
            end += chance.choice((1, 5, 60))
            bench.library.ends[ORDERS] = 0, end
        elif what == "listen" and len(starts) < 6:
            id = len(starts) + 1
            starts[id] = chance.randint(0, end)
            await bench.listen(id, starts[id])
        elif what == "seek" and starts:
            id = chance.choice(sorted(starts))
            starts[id] = chance.randint(0, end)
            bench.heard[id].clear()
            await bench.made.seek(id, str(starts[id]))
        else:
            await asyncio.sleep(0.002)
    bench.library.most = 1000
    await bench.settle_down(*starts)
    assert bench.heard == {id: list(range(start, end)) for id, start in starts.items()}


# Beginning


async def test_one_that_could_not_be_begun_is_begun_where_it_was_to(bench):
    """What was published meanwhile is heard: its position was fixed."""
    bench.channel("orders", 500, 700, partitions=2)
    bench.reader.failing = lambda place: "before" if place[1] == 1 else ""
    for _ in range(2):
        with pytest.raises(Unavailable, match="on purpose"):
            await bench.listen(1, "new")
    bench.library.ends.update({("orders", 0): (0, 502), ("orders", 1): (0, 703)})
    bench.reader.failing = lambda place: ""
    await bench.update()
    await bench.settle_down(1)
    assert sorted(bench.heard[1]) == [500, 501, 700, 701, 702]
    assert bench.reader.added == [(("orders", 0), 500), (("orders", 1), 700)]


async def test_channels_that_were_not_reached_are_not_taken_for_new_ones(bench):
    for name in ("a.1", "a.2", "a.3"):
        bench.channel(name, 20)
    bench.reader.failing = lambda place: "before" if place[0] == "a.2" else ""
    with pytest.raises(Unavailable, match="on purpose"):
        await bench.listen(1, "new", "a.*")
    bench.channel("a.4", 2)
    await bench.made.refresh()  # as when the registry has changed
    bench.reader.failing = lambda place: ""
    await bench.update()
    await bench.settle_down(1)
    assert bench.heard[1] == [0, 1], "of the channel that came"
    assert dict(bench.reader.added) == {("a.1", 0): 20, ("a.2", 0): 20, ("a.3", 0): 20, ("a.4", 0): 0}


async def test_an_answer_that_was_late_does_not_stand_in_the_way(bench):
    """The reader does what it was asked for, even if nobody waits for it any more."""
    bench.reader.failing = lambda place: "late"
    with pytest.raises(Unavailable, match="on purpose"):
        await bench.listen(1, 490)
    bench.turn()
    while bench.calls:
        bench.hear()
    bench.reader.failing = lambda place: ""
    await bench.update()
    await bench.settle_down(1)
    assert bench.heard[1] == list(range(490, 500))


async def test_one_that_is_given_up_before_it_could_be_begun_leaves_nothing(bench):
    bench.channel("orders", 500, 700, partitions=2)
    bench.reader.failing = lambda place: "late" if place[1] == 1 else ""
    with pytest.raises(Unavailable, match="on purpose"):
        await bench.listen(1, 0)
    del bench.interests[1]
    await bench.update()
    assert bench.library.at == {}


async def test_a_new_channel_that_could_not_be_begun_is_tried_again(bench):
    await bench.listen(1, "new", "a.*")
    bench.channel("a.1", 3)
    bench.reader.failing = lambda place: "before"
    with pytest.raises(Unavailable, match="on purpose"):
        await bench.made.refresh()
    bench.reader.failing = lambda place: ""
    await asyncio.sleep(0.01)
    await bench.settle_down(1)
    assert bench.heard[1] == [0, 1, 2]


async def test_closing_leaves_nothing(bench):
    bench.channel("orders", 500, 700, partitions=2)
    await bench.listen(1, 0)
    bench.reader.failing = lambda place: "late"
    bench.channel("others", 5)
    with pytest.raises(Unavailable, match="on purpose"):
        await bench.listen(2, 0, "others")
    await bench.made.close()
    assert bench.library.at == {}


async def test_who_comes_before_another_has_ended_is_not_ended_with_it(bench):
    interests = [Interest(id=1, pattern="orders", start="0")]
    ending = bench.made
    await ending.update(interests)
    bench.made = Broadcasts(bench)
    with pytest.raises(Unavailable, match="on purpose"):
        await bench.made.update(interests)
    await bench.made.update(interests)
    await ending.close()
    bench.heard[1] = []
    await bench.settle_down(1)
    assert bench.heard[1] == list(range(500))


async def test_partitions_that_are_added_are_heard_from_their_beginnings(bench):
    await bench.listen(1, "new")
    await bench.listen(2, 490)
    bench.channel("orders", 500, 3, 2, partitions=3)
    await bench.made.refresh()  # as when the registry has changed
    await bench.made.refresh()
    await bench.settle_down(1, 2)
    assert sorted(bench.heard[1]) == [0, 0, 1, 1, 2]
    assert sorted(bench.heard[2]) == [0, 0, 1, 1, 2, *range(490, 500)]
    assert len(bench.reader.added) == 3


async def test_of_added_partitions_those_that_could_not_be_reached_are_tried_again(bench):
    await bench.listen(1, "new")
    bench.channel("orders", 500, 3, 2, partitions=3)
    bench.reader.failing = lambda place: "before" if place[1] == 2 else ""
    with pytest.raises(Unavailable):
        await bench.made.refresh()
    bench.library.ends[ORDERS] = 0, 501
    bench.reader.failing = lambda place: ""
    await bench.until_read(3)
    await bench.settle_down(1)
    assert sorted(bench.heard[1]) == [0, 0, 1, 1, 2, 500]


async def test_partitions_that_somebody_else_has_added_are_found(bench):
    await bench.listen(1, "new")
    bench.library.ends["orders", 1] = 0, 3
    await bench.until_read(2)
    await bench.settle_down(1)
    assert bench.heard[1] == [0, 1, 2]
    await bench.made.close()
    bench.library.ends["orders", 2] = 0, 3
    await asyncio.sleep(0.02)
    assert bench.channels["orders"].partitions == 2, "nobody looks any more"


async def test_what_was_in_them_before_somebody_listens_is_not_new(bench):
    """The registry does not know them yet."""
    bench.library.ends["orders", 1] = 0, 3
    await bench.listen(1, "new")
    bench.library.ends["orders", 1] = 0, 4
    await bench.settle_down(1)
    assert bench.heard[1] == [3]


async def test_a_position_that_is_sought_counts_for_a_channel_that_is_just_being_begun(bench):
    await bench.listen(1, "new", "a.*")
    bench.channel("a.1", 20)
    beginning = asyncio.ensure_future(bench.made.refresh())
    await asyncio.sleep(0)
    await bench.made.seek(1, "15")
    await beginning
    await bench.settle_down(1)
    assert bench.heard[1] == list(range(15, 20))
