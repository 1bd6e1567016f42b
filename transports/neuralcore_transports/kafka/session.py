"""The client library's consumer of one membership, and the thread that alone may touch it.

What the brokers tell it, it passes to the member, which is the loop's; a partition that goes waits for the member's
last word. Which partitions may be committed is decided here, where it is also heard that they have gone: after that,
a commit would be the next owner's loss.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
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


class Session:
    """What the loop asks by ``subscribe``, ``commit``, ``go_to`` and ``taken`` the thread does. ``stop`` blocks."""

    def __init__(self, transport: KafkaTransport, group: str, member: Member) -> None:
        self._transport = transport
        self._call = transport.call
        self._group = group
        self._member = member
        self._owned: set[Place] = set()
        self._standing: tuple[Any, frozenset[Place]] = None, frozenset()
        name = transport.topics.group(group)
        self._client: Consumer = transport.clients.member(name, on_commit=self._on_commit)
        self._poller = Poller(
            self._client,
            self._call,
            prefetch=transport.options.prefetch,
            name=f"kafka {name}",
            trouble=member.in_trouble,
        )
        self.taken = self._poller.taken
        self.stop = self._poller.stop
        self._poller.start()

    def subscribe(self, topics: list[str]) -> None:
        self._poller.order(partial(self._subscribe, topics))

    def commit(self, offsets: list[TopicPartition]) -> None:
        self._poller.order(partial(self._commit, offsets))

    def go_to(self, partition: Partition, window: Window) -> None:
        self._poller.order(partial(self._go_to, partition, window))

    def settled(self, offsets: Sequence[TopicPartition], needed: Collection[Place]) -> Settled:
        """What a transaction is to commit of these, as this process's part in the group is now. From any thread. Raises
        LeaseLost when it has not all that are needed.

        Of a new generation that leaves everything where it is nobody is told, so it is asked for: for the next try.
        """
        metadata, owned = self._standing
        self._poller.order(self._stand)
        if not owned.issuperset(needed):
            raise LeaseLost
        return [each for each in offsets if (each.topic, each.partition) in owned], metadata

    # In the thread

    def _stand(self) -> None:
        """A generation is told together with what was owned in it: brokers refuse those before the last, and the last
        one's partitions are nobody else's.
        """
        self._standing = self._client.consumer_group_metadata(), frozenset(self._owned)

    def _subscribe(self, topics: list[str]) -> None:
        if topics:
            self._client.subscribe(topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
        else:
            self._client.unsubscribe()

    def _commit(self, offsets: list[TopicPartition]) -> None:
        mine = [each for each in offsets if (each.topic, each.partition) in self._owned]
        if not mine:
            self._on_commit(None, ())
            return
        try:
            self._client.commit(offsets=mine, asynchronous=True)
        except KafkaException as error:
            self._on_commit(error.args[0], ())

    def _on_commit(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        self._call(self._member.told, error, partitions)

    # Partitions come

    def _on_assign(self, client: Consumer, partitions: list[TopicPartition]) -> None:
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
            self._poller.add(flow)
            found.append((flow, partition))
            starts.append(flow.at(partition.window.position))
        self._owned.update(partition.key for _, partition in found)
        self._stand()
        self._call(self._member.assigned, found)
        client.incremental_assign(starts)

    def _committed(self, client: Consumer, partitions: list[TopicPartition]) -> dict[Place, TopicPartition] | None:
        """Tried until it is known, or all is over: nothing may be read before."""
        while partitions and not self._poller.stopping:
            try:
                found = client.committed(partitions, self._transport.options.timeout)
            except KafkaException as error:
                log.warning("the positions of %s are not known yet: %s", self._group, error)
                continue
            wrong = [each.error for each in found if each.error is not None]
            if not wrong:
                return {(each.topic, each.partition): each for each in found}
            log.warning("the positions of %s are not known yet: %s", self._group, wrong[0])
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
        try:
            low, high = self._client.get_watermark_offsets(
                TopicPartition(*partition.key), self._transport.options.timeout
            )
        except KafkaException as error:
            log.warning("%s of %s is not known: %s", partition.key, self._group, error)
            self._poller.order(partial(self._find, partition))
            return
        position = partition.window.position
        start = low if position < low else high
        self._go_to(partition, Window(start, epoch=partition.window.epoch))
        lost = f"{low - position} messages" if position < low else f"what was behind {high}"
        if position > 0:
            text = f"group {self._group} was at {position} of {partition.key}, and {lost} are gone"
            self._call(self._transport.data_lost, partition.channel, text)

    def _go_to(self, partition: Partition, window: Window) -> None:
        """What was read before comes to nobody."""
        key = partition.key
        if self._poller.remove(*key) is None:
            return
        flow = self._flow(partition)
        self._poller.add(flow)
        self._call(self._member.sought, flow, partition, window)
        try:
            self._client.seek(flow.at(window.position))
        except KafkaException as error:
            log.debug("seeking in %s of %s failed, it is tried again: %s", key, self._group, error)
            self.go_to(partition, window)

    # Partitions go

    def _on_revoke(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        keys = [(each.topic, each.partition) for each in partitions]
        self._stand()
        done, commits = threading.Event(), dict[Place, Commit]()
        self._call(self._member.revoking, keys, commits, done)
        patience = self._transport.options.handover + 1.0
        if not done.wait(patience):
            log.warning(
                "the event loop did not answer for %g s, while partitions of %s had to go", patience, self._group
            )
        self._owned.difference_update(keys)
        self._stand()
        last = [TopicPartition(*key, commit.offset, commit.metadata) for key, commit in list(commits.items())]
        if last:
            self._commit_last(client, last)
        for key in keys:
            self._poller.remove(*key)
        self._call(self._member.gone, keys)
        client.incremental_unassign(partitions)

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
        keys = [(each.topic, each.partition) for each in partitions]
        self._owned.difference_update(keys)
        self._stand()
        for key in keys:
            self._poller.remove(*key)
        self._call(self._member.gone, keys)
        client.incremental_unassign(partitions)
