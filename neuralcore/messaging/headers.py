"""The names of the headers that the bus itself writes and reads; the prefix ``nc-`` is its own."""

from __future__ import annotations

from typing import Final, Literal

from neuralcore.messaging.names import DEAD_LETTER_PREFIX

__all__ = [
    "DEAD_LETTER_PREFIX",
    "DLQ_ATTEMPTS",
    "DLQ_ERROR",
    "DLQ_ERROR_TYPE",
    "DLQ_GROUP",
    "DLQ_ID",
    "DLQ_ORIGIN",
    "DLQ_PUBLISHED",
    "DLQ_REASON",
    "DLQ_TIME",
    "MAX_ERROR_TEXT",
    "PREFIX",
    "REPLAY",
    "REPLAY_GROUP",
    "REPLY_ERROR",
    "REPLY_ERROR_TYPE",
    "TRACEPARENT",
    "TRACESTATE",
    "DeadLetterReason",
]

PREFIX: Final = "nc-"

DeadLetterReason = Literal["attempts", "rejected", "undecodable", "expired", "poison"]

DLQ_ORIGIN: Final = "nc-dlq-origin"
"""The channel it was published to."""
DLQ_REASON: Final = "nc-dlq-reason"
"""A DeadLetterReason."""
DLQ_ERROR_TYPE: Final = "nc-dlq-error-type"
DLQ_ERROR: Final = "nc-dlq-error"
DLQ_ATTEMPTS: Final = "nc-dlq-attempts"
DLQ_GROUP: Final = "nc-dlq-group"
"""The group that gave up on it; absent for broadcasts."""
DLQ_ID: Final = "nc-dlq-id"
"""The original message's id."""
DLQ_PUBLISHED: Final = "nc-dlq-first-time"
"""When the original was published: wall clock, nanoseconds."""
DLQ_TIME: Final = "nc-dlq-time"
"""When it was dead-lettered: wall clock, nanoseconds."""
MAX_ERROR_TEXT: Final = 2000
"""Characters of an error's text that a header holds."""

REPLAY: Final = "nc-replay"
"""Which replay of the message this is; absent on the first publish."""
REPLAY_GROUP: Final = "nc-replay-group"
"""On a replay: the one group that it is for; others ack it unhandled."""

REPLY_ERROR_TYPE: Final = "nc-reply-error-type"
"""On a reply: the responder failed with an exception of this type …"""
REPLY_ERROR: Final = "nc-reply-error"
"""… and this text."""

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
