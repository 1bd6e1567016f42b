"""Makes the topics of channels. It blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.errors import ChannelConflict, TransportError
from neuralcore.messaging.names import is_reserved
from neuralcore_transports.kafka.administration import Administration
from neuralcore_transports.kafka.clients import log
from neuralcore_transports.kafka.options import KafkaOptions
from neuralcore_transports.kafka.registry import Channel
from neuralcore_transports.kafka.topics import Topics

__all__ = ["MAX_PAYLOAD", "Making"]

MAX_PAYLOAD: Final = 16 * 1024 * 1024

_FOR_EVER: Final = {"retention.ms": "-1", "retention.bytes": "-1"}
_EACH: Final = {"cleanup.policy": "delete", "max.message.bytes": str(MAX_PAYLOAD + 65_536)}
_REPLIES: Final = {"cleanup.policy": "delete", "retention.ms": "600000"}


@dataclass(frozen=True, slots=True)
class _Plan:
    config: ChannelConfig
    known: Channel | None
    bands: tuple[int, ...]
    topics: list[str]
    partitions: int


class Making:
    def __init__(self, options: KafkaOptions, topics: Topics, administration: Administration) -> None:
        self._options = options
        self._topics = topics
        self._administration = administration

    def registry(self) -> None:
        """Its topic is there when this returns. Raises TransportError."""
        topic = self._topics.registry
        if self._administration.partitions([topic]):
            return
        if not self._options.create:
            raise TransportError(
                f"kafka:// with create=no wants topics {topic} (1 partition, retention.ms=-1) and "
                f"{self._topics.inboxes} (some partitions) beside the channels' own, and they are not there"
            )
        self._administration.create({topic: 1}, self._options.replication, {**_FOR_EVER, "cleanup.policy": "delete"})

    def inboxes(self) -> int:
        """How many partitions the topic of replies has. Raises TransportError."""
        topic = self._topics.inboxes
        there = self._administration.partitions([topic])
        if not there:
            if not self._options.create:
                raise TransportError(f"topic {topic} is not there, and create=no says not to make it")
            there = self._administration.create({topic: self._options.inboxes}, self._options.replication, _REPLIES)
        return there[topic]

    def channels(
        self, wanted: Sequence[tuple[ChannelConfig, Channel | None]], *, implied: bool = False
    ) -> list[Channel]:
        """What the registry is to say of each; given beside it, what it has said. ``implied``: they are needed, and
        what was said of them stays. Raises ChannelConflict, TransportError.
        """
        plans = [self._plan(config, known) for config, known in wanted]
        there = self._administration.partitions([topic for plan in plans for topic in plan.topics])
        missing = {plan.config.name: [topic for topic in plan.topics if topic not in there] for plan in plans}
        for plan in plans:
            if missing[plan.config.name] and not self._may_create(plan.config):
                names = ", ".join(missing[plan.config.name])
                raise TransportError(f"topics {names} are not there, and create= says not to make them")
        there |= self._create(plans, missing)
        made = [(plan, self._partitions(plan, min(there[topic] for topic in plan.topics))) for plan in plans]
        return [_implied(plan, have) if implied else _declared(plan, have) for plan, have in made]

    def _plan(self, config: ChannelConfig, known: Channel | None) -> _Plan:
        bands = config.bands if config.bands is not None else known.bands if known else ()
        if known is not None and bands != known.bands:
            raise ChannelConflict(config.name, [f"it has the bands {known.bands}, and messages in them"])
        default = 1 if is_reserved(config.name) else self._options.partitions
        count = config.partitions or (known.partitions if known else default)
        return _Plan(config, known, bands, self._topics.bands(config.name, bands), count)

    def _may_create(self, config: ChannelConfig) -> bool:
        return self._options.create if config.create is None else config.create

    def _create(self, plans: Sequence[_Plan], missing: dict[str, list[str]]) -> dict[str, int]:
        settings = {**_EACH, **(_FOR_EVER if self._options.trim else {})}
        by_copies: dict[int | None, dict[str, int]] = {}
        for plan in plans:
            copies = plan.config.replication or self._options.replication
            by_copies.setdefault(copies, {}).update(dict.fromkeys(missing[plan.config.name], plan.partitions))
        made: dict[str, int] = {}
        for copies, topics in by_copies.items():
            if topics:
                made |= self._administration.create(topics, copies, settings)
        return made

    def _partitions(self, plan: _Plan, have: int) -> int:
        """How many there are, when there are as many as were asked for."""
        name, asked = plan.config.name, plan.config.partitions
        least = plan.known.partitions if plan.known is not None else have
        if asked is None and have < least and self._may_create(plan.config):  # somebody has made it again, with fewer
            self._administration.grow(plan.topics, least)
            return least
        if asked is None or asked == have:
            return have
        if asked < have:
            raise ChannelConflict(name, [f"it has {have} partitions, and Kafka takes none away"])
        log.warning("%s gets %d partitions: keys move, and their order with them", name, asked)
        self._administration.grow(plan.topics, asked)
        return asked


def _declared(plan: _Plan, partitions: int) -> Channel:
    config = plan.config
    kept = config.retention
    return Channel(
        config.name,
        partitions,
        plan.bands,
        age=kept.age if kept else None,
        count=kept.count if kept else None,
        bytes=kept.bytes if kept else None,
        dedup_window=config.dedup_window,
    )


def _implied(plan: _Plan, partitions: int) -> Channel:
    return Channel(plan.config.name, partitions, plan.bands, implied=True)
