"""Chooses the link for a transport."""

from __future__ import annotations

from neuralcore.messaging.context import BusContext
from neuralcore.messaging.link import Link
from neuralcore.messaging.local import LocalLink
from neuralcore.messaging.registry import transport_for
from neuralcore.messaging.replies import Replies
from neuralcore.messaging.timers import Timers
from neuralcore.messaging.transport import Transport

__all__ = ["link_for"]


def link_for(transport: str | Transport, context: BusContext, timers: Timers, replies: Replies) -> Link:
    """Raises UnknownScheme, MissingExtra."""
    carrier = transport_for(transport)
    if carrier.capabilities.in_process:
        return LocalLink(context, timers, replies)
    from neuralcore.messaging.remote import RemoteLink

    return RemoteLink(carrier, context, timers, replies)
