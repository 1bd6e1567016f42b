"""A commit as the server reads it: what is published and settled, by channels and consumers."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final

from neuralcore.messaging.names import INBOX_PREFIX
from neuralcore.messaging.transport import Envelope, Outcome, PublishStatus, Settlement, SettleStatus
from neuralcore_transports.redis.entries import fields_of
from neuralcore_transports.redis.layout import Layout
from neuralcore_transports.redis.leases import Lease, lease_of

__all__ = ["MOST_FIELDS", "PUBLISHED", "SETTLED", "Parts", "publish_parts", "settle_parts"]

Parts = list["str | bytes | int"]

MOST_FIELDS: Final = 7000
"""A script's command takes about that many arguments."""

PUBLISHED: Final = {
    1: PublishStatus.STORED,
    2: PublishStatus.DUPLICATE,
    3: PublishStatus.DROPPED,
    4: PublishStatus.REFUSED,
    5: PublishStatus.FULL,
}
SETTLED: Final = {1: SettleStatus.SETTLED, 2: SettleStatus.LEASE_LOST, 3: SettleStatus.SKIPPED}

_OUTCOMES: Final = {Outcome.ACK: "A", Outcome.NACK: "N", Outcome.RELEASE: "R", Outcome.ATTEMPT: "T"}


def publish_parts(
    layout: Layout, source: str, indexed: Sequence[tuple[int, Envelope]]
) -> tuple[Parts, list[int], list[str]]:
    """The blocks of some publishes, the indices in the order of the blocks, and the blocks' channels."""
    by_channel: dict[str, list[tuple[int, Envelope]]] = {}
    for index, envelope in indexed:
        by_channel.setdefault(envelope.channel, []).append((index, envelope))
    parts: Parts = [len(by_channel)]
    order: list[int] = []
    channels: list[str] = []
    for channel, its in by_channel.items():
        base = layout.base(channel)
        if channel.startswith(INBOX_PREFIX):
            base = f"@{base}"
        else:
            channels.append(channel)
        parts += (base, len(its))
        for index, envelope in its:
            order.append(index)
            fields = fields_of(envelope, source)
            known = envelope.dedup_key or envelope.id
            parts += (
                envelope.priority,
                f"{known}\n{envelope.replay}" if envelope.replay else known,
                -(-envelope.delay_ns // 1_000_000),
                0 if envelope.not_before_ns is None else -(-envelope.not_before_ns // 1_000_000),
                len(fields),
                *fields,
            )
    return parts, order, channels


def settle_parts(
    indexed: Sequence[tuple[int, Settlement]],
    held: Container[int],
    order_of: dict[int, int],
    *,
    again: bool,
) -> tuple[Parts, list[int]]:
    """The blocks of some settlements, and their indices in the order of the blocks. ``order_of``: where in this commit
    each publish is. ``again``: this is a repetition, and what it finds settled it may have settled itself.
    """
    by_consumer: dict[tuple[str, str, str], list[tuple[int, Settlement, Lease]]] = {}
    for index, settlement in indexed:
        lease = lease_of(settlement.delivery)
        if lease is not None:
            by_consumer.setdefault((lease.base, lease.group, lease.consumer), []).append((index, settlement, lease))
    parts: Parts = [len(by_consumer)]
    order: list[int] = []
    for (base, group, consumer), its in by_consumer.items():
        parts += (base, group, consumer, int(again), len(its))
        for index, settlement, lease in its:
            order.append(index)
            key = settlement.delivery.envelope.key
            parts += (
                _OUTCOMES[settlement.outcome] if index in held else "L",
                lease.priority,
                lease.entry,
                "" if key is None else key,
                int(key is not None),
                -(-settlement.delay_ns // 1_000_000),
                int(settlement.pass_key),
                int(lease.tried),
                0 if settlement.after is None else order_of.get(settlement.after, 0),
            )
    return parts, order
