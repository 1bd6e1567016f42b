"""What a client that is made to be killed does with messages that it is not to hold: their payload says so."""

from __future__ import annotations

from neuralcore._core import Message
from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.retry import Reject, Retry

__all__ = ["LATER", "done", "errand"]

LATER = 2.0
"""Seconds after which an errand ``later`` is to come again."""


def done(channel: str) -> str:
    """Where its receipts go."""
    return f"{channel}.done"


async def errand(bus: MessageBus, message: Message) -> bool:
    """Do what the first word of the payload asks for; False when the message is to be held.

    ``quick-…`` is handled at once, ``later-…`` is to come again; both are repeated on the channel of receipts first.
    ``reject-…`` is dead-lettered.
    """
    word = message.payload.partition("-")[0] if isinstance(message.payload, str) else ""
    if word == "reject":
        raise Reject("on purpose")
    if word not in ("quick", "later"):
        return False
    key = {} if message.key is None else {"key": message.key}
    await bus.publish(done(message.channel), message.payload, **key)
    if word == "later":
        raise Retry(after=LATER)
    return True
