"""Channels and topics, both ways.

Kafka takes letters, digits, dots, dashes and underscores, 249 of them. What else a channel's name has is written ``_``
and the hexadecimal digits of its UTF-8, two for each byte; an underscore is written twice.
"""

from __future__ import annotations

import re
from typing import Final

from neuralcore.messaging.errors import InvalidChannelName

__all__ = ["MAX_LENGTH", "Topics"]

MAX_LENGTH: Final = 249

_OTHER: Final = re.compile(r"[^a-zA-Z0-9.-]")
_WRITTEN: Final = re.compile(r"_(_|[0-9a-f]{2})")


class Topics:
    """Of one prefix: buses with different ones do not see each other."""

    def __init__(self, prefix: str) -> None:
        self._prefix = f"{prefix}." if prefix else ""

    def topic(self, channel: str) -> str:
        """Raises InvalidChannelName for what is too long for Kafka."""
        topic = self._prefix + _OTHER.sub(_written, channel)
        if len(topic) > MAX_LENGTH:
            raise InvalidChannelName(
                channel,
                f"its topic would have {len(topic)} characters, and Kafka takes {MAX_LENGTH}: choose a shorter name",
            )
        return topic

    def channel(self, topic: str) -> str | None:
        """None for a topic that is no channel of this prefix."""
        if not topic.startswith(self._prefix):
            return None
        written = topic.removeprefix(self._prefix)
        try:
            channel = _read(written)
        except UnicodeDecodeError:
            return None
        return channel if self._is(topic, channel) else None

    def _is(self, topic: str, channel: str) -> bool:
        """Whether it is written in the one way that it can be."""
        try:
            return bool(channel) and self.topic(channel) == topic
        except InvalidChannelName:
            return False


def _written(found: re.Match[str]) -> str:
    text = found.group()
    return "__" if text == "_" else "".join(f"_{byte:02x}" for byte in text.encode())


def _read(written: str) -> str:
    """Raises UnicodeDecodeError."""
    return _WRITTEN.sub(lambda found: chr(_byte(found.group(1))), written).encode("latin-1", "strict").decode()


def _byte(text: str) -> int:
    return ord("_") if text == "_" else int(text, 16)
