"""The client library's consumer of one membership, and the thread that alone may touch it.

What the brokers tell it, it passes to the member, which is the loop's; a partition that goes waits for the member's
last word. Which partitions may be committed is decided here, where it is also heard that they have gone: after that,
a commit would be the next owner's loss.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from neuralcore.messaging.errors import LeaseLost
from neuralcore_transports.kafka.administration import Place
from neuralcore_transports.kafka.clients import log
from neuralcore_transports.kafka.dedup import Seen
from neuralcore_transports.kafka.errors import group_is_changing, position_is_gone
from neuralcore_transports.kafka.partition import Partition
from neuralcore_transports.kafka.poller import Flow, Poller
from neuralcore_transports.kafka.transactor import Settled
from neuralcore_transports.kafka.window import BadMetadata, Commit, Moment, Window

if TYPE_CHECKING:
    from neuralcore_transports.kafka.member import Member
    from neuralcore_transports.kafka.transport import KafkaTransport

__all__ = ["Session"]

_TRIES: Final = 10
_SOON: Final = 0.05
_LATER: Final = 0.5
"""Seconds before what the brokers refused is tried again."""


_Content = tuple[str, int, int, str | None]


class Session:
    """What the loop asks by ``subscribe``, ``commit`` and ``follow`` the thread does. ``taken`` is the loop's, ``stop``
    blocks.
    """

    def __init__(self, transport: KafkaTransport, group: str, member: Member) -> None:
        self._transport = transport
        self._call = transport.call
        self._group = group
        self._member = member
        self._owned: dict[Place, Partition] = {}
        self._topics: list[str] = []
        self._commits: deque[list[TopicPartition]] = deque()
        """Those that were asked for."""
        self._sent: list[TopicPartition] | None = None
        """The last of those that the library has, and has not told of."""
        self._answered: list[frozenset[_Content]] = []
        """Those that it may tell of, and the member knows."""
        self._asked = threading.Event()
        """Of the thread, while it waits for those whose partitions go."""
        self._open = 0
        """Commits that the library has, and has not told of."""
        self._standing: tuple[Any, frozenset[Place]] = None, frozenset()
        name = transport.topics.group(group)
        self._poller = Poller(
            partial(transport.clients.member, name, on_commit=self._on_commit),
            self._call,
            prefetch=transport.options.prefetch,
            name=f"kafka {name}",
            silence=transport.silence(f"the consumer of {group}"),
            replaced=self._begin_anew,
            trouble=member.in_trouble,
        )
        self.taken = self._poller.taken
        self.stop = self._poller.stop
        self._poller.start()

    def subscribe(self, topics: list[str]) -> None:
        self._poller.order(partial(self._subscribe, topics))

    def commit(self, offsets: list[TopicPartition]) -> None:
        self._commits.append(offsets)
        self._poller.order(self._commit_all)
        self._asked.set()

    def follow(self, partition: Partition) -> None:
        """The group was given another position there."""
        self._poller.order(partial(self._follow, partition))

    def settled(self, offsets: list[TopicPartition]) -> Settled:
        """What a transaction is to commit, as this process's part in the group is now. From any thread. Raises
        LeaseLost when it has not all of these partitions.

        Of a new generation that leaves everything where it is nobody is told, so it is asked for: for the next try.
        """
        metadata, owned = self._standing
        self._poller.order(self._stand)
        if not owned.issuperset((each.topic, each.partition) for each in offsets):
            raise LeaseLost
        return offsets, metadata

    # In the thread

    @property
    def _client(self) -> Consumer:
        return self._poller.client

    def _begin_anew(self) -> None:
        """Another client has taken the last one's place: nothing is ours any more, and of what that one was to commit
        nobody will be told.
        """
        self._forget(list(self._owned))
        unknown = self._open - len(self._answered)
        self._open = 0
        self._answered.clear()
        for _ in range(unknown):
            self._answer(KafkaError(KafkaError._TRANSPORT, "the client that was to send it has lost all brokers"), ())
        self._subscribe(self._topics)

    def _stand(self) -> None:
        """A generation is told together with what was owned in it: brokers refuse those before the last, and the last
        one's partitions are nobody else's.
        """
        self._standing = self._client.consumer_group_metadata(), frozenset(self._owned)

    def _later(self, at: float, what: Callable[[], None]) -> None:
        if time.monotonic() < at:
            self._poller.order(partial(self._later, at, what))
        else:
            what()

    def _try_again(self, what: Callable[[], None]) -> None:
        self._later(time.monotonic() + _LATER, what)

    def _subscribe(self, topics: list[str]) -> None:
        self._topics = topics
        if topics:
            self._client.subscribe(topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
        else:
            self._client.unsubscribe()

    def _commit_all(self) -> None:
        while self._commits:
            mine = self._owned_of(self._commits.popleft())
            if not mine:
                self._answer(None, ())
                continue
            try:
                self._client.commit(offsets=mine, asynchronous=True)
                self._sent = mine
                self._open += 1
            except KafkaException as error:
                self._answer(error.args[0], ())

    def _commit_at_once(self) -> bool:
        """One, inside a callback, where the library tells of no commit: of the one under way only after it, too late.
        False when there was none.
        """
        if self._sent is not None:
            self._answered.append(_contents(self._sent))
            self._commits.appendleft(self._sent)
            self._sent = None
        if not self._commits:
            return False
        mine = self._owned_of(self._commits.popleft())
        try:
            answer = self._client.commit(offsets=mine, asynchronous=False) if mine else ()
        except KafkaException as error:
            self._answer(error.args[0], ())
        else:
            self._answer(None, answer)
        return True

    def _owned_of(self, offsets: list[TopicPartition]) -> list[TopicPartition]:
        return [each for each in offsets if (each.topic, each.partition) in self._owned]

    def _on_commit(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        contents = _contents(partitions)
        self._open -= 1
        if contents in self._answered:
            self._answered.remove(contents)
            return
        if self._sent is not None and contents == _contents(self._sent):  # not an older one's, that was given up
            self._sent = None
        self._answer(error, partitions)

    def _answer(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        self._call(self._member.told, error, partitions)

    # Partitions come

    def _on_assign(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        """May not raise: the library would drop what it was about to hand over, and assign without us."""
        try:
            self._assign(client, partitions)
        except Exception:  # noqa: BLE001 - whatever it was, nothing is read without an owner
            log.exception("partitions of %s cannot be taken, the group is joined again", self._group)
            client.incremental_assign([])
            self._try_again(self._rejoin)

    def _rejoin(self) -> None:
        topics = self._topics
        self._subscribe([])
        self._subscribe(topics)

    def _assign(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        commits = self._committed(client, partitions)
        if commits is None:
            client.incremental_assign(partitions)  # nobody takes anything from them any more
            return
        found, starts = [], []
        for each in partitions:
            partition = self._partition(each, commits.get((each.topic, each.partition)))
            if partition is None:
                continue
            flow = self._flow(partition)
            self._poller.add(flow, partition.window.position)
            found.append((flow, partition))
            starts.append(flow.at(partition.window.position))
        self._owned.update((partition.key, partition) for _, partition in found)
        self._stand()
        self._call(self._member.assigned, found)
        client.incremental_assign(starts)

    def _committed(self, client: Consumer, partitions: list[TopicPartition]) -> dict[Place, TopicPartition] | None:
        """Tried until it is known, or all is over, or the client is lost: nothing may be read before."""
        while partitions and not self._poller.stopping and not self._poller.has_lost_brokers():
            try:
                found = client.committed(partitions, self._transport.options.timeout)
            except KafkaException as error:
                wrong = error.args[0]
            else:
                wrong = next((each.error for each in found if each.error is not None), None)
                if wrong is None:
                    return {(each.topic, each.partition): each for each in found}
            log.warning("the positions of %s are not known yet: %s", self._group, wrong)
            self._call(self._member.in_trouble, wrong)
            time.sleep(_LATER)
        return None if partitions else {}

    def _partition(self, at: TopicPartition, commit: TopicPartition | None) -> Partition | None:
        """None for one of a channel that was removed meanwhile."""
        where = self._transport.registrar.channel_of(at.topic)
        position = None if where is None else self._transport.registrar.registry.position(self._group, where[0].channel)
        if where is None or position is None:
            return None
        channel, band = where
        fresh = Window(position.start(band, at.partition), epoch=position.epoch)
        options, key = self._transport.options, (at.topic, at.partition)
        return Partition(
            self._member,
            key,
            channel.channel,
            band,
            self._restored(commit, fresh),
            below=channel.below(band),
            clock=self._transport.clock,
            seen=Seen(options.dedup_ns(channel.dedup_window), options.dedup_count),
            taken=partial(self._member.taken, key),
            count=self._transport.count,
        )

    def _restored(self, commit: TopicPartition | None, fresh: Window) -> Window:
        if commit is None:
            return fresh
        now = Moment.now(self._transport.clock)
        return Window.continued(fresh, commit.offset, commit.metadata, now, partial(self._damaged, commit.topic))

    def _damaged(self, topic: str, error: BadMetadata) -> None:
        log.error("%s of %s: %s; what was settled out of order comes again", topic, self._group, error)

    def _flow(self, partition: Partition) -> Flow:
        member = self._member
        return Flow(
            *partition.key,
            partial(member.arrived, partition),
            partial(self._failed, partition),
            partial(member.ended, partition),
        )

    def _failed(self, partition: Partition, error: KafkaError) -> None:
        """On the loop."""
        if position_is_gone(error):
            self._poller.order(partial(self._find, partition))
        else:
            log.warning("reading %s of %s failed: %s", partition.key, self._group, error.str())

    def _find(self, partition: Partition) -> None:
        """Go on with what is there."""
        if self._owned.get(partition.key) is not partition:
            return
        place = TopicPartition(*partition.key)
        try:
            low, high = self._client.get_watermark_offsets(place, self._transport.options.timeout)
        except KafkaException as error:
            log.warning("%s of %s is not known: %s", partition.key, self._group, error)
            self._try_again(partial(self._find, partition))
            return
        position = partition.window.position
        start = min(max(low, position), high)
        if not self._read_from(partition, Window(start, epoch=partition.window.epoch)):
            self._try_again(partial(self._find, partition))
        elif start != position > 0:
            lost = f"{low - position} messages" if position < low else f"what was behind {high}"
            text = f"group {self._group} was at {position} of {partition.key}, and {lost} are gone"
            self._call(self._transport.data_lost, partition.channel, text)

    def _follow(self, partition: Partition) -> None:
        """To where the group is now: it may have been moved again, or be gone, since that was asked for."""
        if self._owned.get(partition.key) is not partition:
            return
        position = self._transport.registrar.registry.position(self._group, partition.channel)
        if position is None:
            self._call(self._member.not_moved, partition)
            return
        window = Window(position.start(partition.band, partition.key[1]), epoch=position.epoch)
        if not self._read_from(partition, window):
            self._try_again(partial(self._follow, partition))

    def _read_from(self, partition: Partition, window: Window) -> bool:
        """What was read before comes to nobody."""
        flow = self._flow(partition)
        try:
            self._client.seek(flow.at(window.position))
        except KafkaException as error:
            log.debug("seeking in %s of %s failed, it is tried again: %s", flow.key, self._group, error)
            return False
        self._poller.remove(*flow.key)
        self._poller.add(flow, window.position)
        self._call(self._member.sought, flow, partition, window)
        return True

    # Partitions go

    def _on_revoke(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            self._revoke(client, partitions)
        except Exception:  # noqa: BLE001 - as above
            log.exception("partitions of %s went without a last word", self._group)
            self._lose(client, partitions)

    def _revoke(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        keys = [(each.topic, each.partition) for each in partitions]
        self._stand()
        commits = self._last_words(keys)
        self._disown(keys)
        last = [TopicPartition(*key, commit.offset, commit.metadata) for key, commit in list(commits.items())]
        if last:
            self._commit_last(client, last)
        for key in keys:
            self._poller.remove(*key)
        self._call(self._member.gone, keys)
        client.incremental_unassign(partitions)

    def _last_words(self, keys: list[Place]) -> dict[Place, Commit]:
        """The member's, of partitions that go; it hands out meanwhile what it has of the others, so commits go on. The
        library has paused them all until these have gone.
        """
        commits: dict[Place, Commit] = {}
        over = threading.Event()

        def done() -> None:
            over.set()
            self._asked.set()

        self._call(self._member.revoking, keys, commits, done)
        patience = self._transport.options.handover + 1.0
        deadline = time.monotonic() + patience
        while not over.is_set() and (left := deadline - time.monotonic()) > 0:
            if not self._commit_at_once():
                self._asked.wait(left)
                self._asked.clear()
        if not over.is_set():
            log.warning(
                "the event loop did not answer for %g s, while partitions of %s had to go", patience, self._group
            )
        return commits

    def _commit_last(self, client: Consumer, offsets: list[TopicPartition]) -> None:
        """The group's generation may change just now, and is known a little later."""
        for again in range(_TRIES, -1, -1):
            try:
                client.commit(offsets=offsets, asynchronous=False)
            except KafkaException as error:
                if again and group_is_changing(error):
                    time.sleep(_SOON)
                    continue
                log.warning("the last commit of %s failed, what it says comes again: %s", self._group, error)
            return

    def _on_lost(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            self._lose(client, partitions)
        except Exception:  # noqa: BLE001 - as above
            log.exception("losing partitions of %s failed", self._group)

    def _lose(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        self._forget([(each.topic, each.partition) for each in partitions])
        client.incremental_unassign(partitions)

    def _forget(self, keys: list[Place]) -> None:
        self._sent = None  # it may not be sent again when they come back
        self._disown(keys)
        for key in keys:
            self._poller.remove(*key)
        self._call(self._member.gone, keys)

    def _disown(self, keys: list[Place]) -> None:
        for key in keys:
            self._owned.pop(key, None)
        self._stand()


def _contents(offsets: Sequence[TopicPartition]) -> frozenset[_Content]:
    return frozenset((each.topic, each.partition, each.offset, each.metadata) for each in offsets)
