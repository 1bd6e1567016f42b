"""What channels, subscriptions and publishes need of a transport: missing capabilities are errors, never dropped."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.lacking import missing
from neuralcore.messaging.priority import Priority
from neuralcore.messaging.terms import Terms
from neuralcore.messaging.transport import Capabilities, Cursor, Envelope

__all__ = ["check_channel", "check_publish", "check_start", "check_subscription", "with_bands"]


def check_channel(has: Capabilities, config: ChannelConfig) -> None:
    name = f"channel {config.name!r}"
    if config.retention is not None and not has.retention:
        raise missing("retention", name)
    if config.dedup_window is not None and has.dedup == "none":
        raise missing("dedup", name)
    if (config.capacity is not None or config.overflow is not None) and not has.bounded:
        raise missing("bounded", f"{name} with a capacity or an overflow policy")
    if config.bands and not (has.priorities or has.bands):
        raise missing("bands", f"{name} with bands of priorities")
    if config.priority != Priority.NORMAL and not with_bands(has, config).priorities:
        raise missing("priorities", name)


def with_bands(has: Capabilities, config: ChannelConfig) -> Capabilities:
    """What there is on this channel."""
    return replace(has, priorities=True) if config.bands and has.bands else has


def check_subscription(has: Capabilities, terms: Terms) -> None:
    name = f"a subscription to {terms.pattern!r}"
    if terms.group is None and not terms.broadcast:
        raise missing(
            "in_process",
            f"{name} with neither group= nor broadcast=True: say whether its members share the messages, "
            "so that changing the URL never changes who gets what",
        )
    if terms.group is not None and not has.groups:
        raise missing("groups", name)
    if terms.broadcast and not has.broadcast:
        raise missing("broadcast", name)
    check_start(has, terms.start, name)


def check_start(has: Capabilities, start: Cursor | None, name: str) -> None:
    """Raises Unsupported."""
    if isinstance(start, datetime):
        if not has.seek_time:
            raise missing("seek_time", name)
    elif start not in (None, "new", "beginning") and not has.seek_id:
        raise missing("seek_id", name)


def check_publish(has: Capabilities, envelope: Envelope, *, mandatory: bool) -> None:
    if mandatory:
        name = _name(envelope)
        raise missing("in_process", f"{name} with mandatory=True: here it is kept for whoever subscribes later")
    if envelope.key is not None and not has.keys:
        raise missing("keys", _name(envelope))
    if (envelope.delay_ns or envelope.not_before_ns is not None) and not has.delay:
        raise missing("delay", _name(envelope))
    if envelope.dedup_key is not None and has.dedup == "none":
        raise missing("dedup", f"{_name(envelope)} with an idempotency key")
    if envelope.priority != Priority.NORMAL and not has.priorities:
        raise missing("priorities", _name(envelope))
    if envelope.reply_to is not None and not has.request_reply:
        raise missing("request_reply", _name(envelope))


def _name(envelope: Envelope) -> str:
    return f"a message on {envelope.channel!r}"
