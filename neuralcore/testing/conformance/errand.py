"""What a client that is made to be killed does with messages that it is not to hold: their payload says so."""

from __future__ import annotations

import asyncio

from neuralcore._core import Message
from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.retry import Reject, Retry

__all__ = ["LATER", "done", "errand"]

LATER = 5.0
"""Seconds after which an errand ``later`` is to come again."""

MOMENT = 0.005
"""Seconds: handlers that take so long overlap, where they may."""


def done(channel: str) -> str:
    """Where its receipts go."""
    return f"{channel}.done"


async def errand(bus: MessageBus, message: Message) -> bool:
    """Do what the first word of the payload asks for; False when the message is to be held.

    ``quick-…`` is handled at once, ``slow-n`` takes a moment, ``later-…`` is to come again; all of them are repeated on
    the channel of receipts. ``reject-…`` is dead-lettered.
    """
    word, _, number = message.payload.partition("-") if isinstance(message.payload, str) else ("", "", "")
    if word == "reject":
        raise Reject("on purpose")
    if word not in ("quick", "slow", "later"):
        return False
    if word == "slow":
        await asyncio.sleep(int(number) % 3 * MOMENT)
    await bus.publish(done(message.channel), message.payload, key=message.key)
    if word == "later":
        raise Retry(after=LATER)
    return True
