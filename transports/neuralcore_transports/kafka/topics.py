"""Channels and topics, both ways.

Kafka takes letters, digits, dots, dashes and underscores, 249 of them. What else a channel's name has is written ``_``
and the hexadecimal digits of its UTF-8, two for each byte; an underscore is written twice. So no channel's topic has an
underscore before another letter: those are the bus's own, and the bands of a channel's priorities.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from neuralcore.messaging.errors import InvalidChannelName
from neuralcore.messaging.priority import Priority

__all__ = ["MAX_LENGTH", "Topics", "band_of"]

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

    def bands(self, channel: str, bounds: Sequence[int]) -> list[str]:
        """A topic for each band of priorities, that of ordinary ones under the channel's own name.

        ``bounds``: the most urgent priority of each, ascending. Raises InvalidChannelName.
        """
        topic = self.topic(channel)
        ordinary = band_of(bounds, Priority.NORMAL)
        topics = [topic if band == ordinary else f"{topic}_p{bound}" for band, bound in enumerate(bounds)] or [topic]
        longest = max(topics, key=len)
        if len(longest) > MAX_LENGTH:
            raise InvalidChannelName(channel, f"its topic {longest} is longer than the {MAX_LENGTH} that Kafka takes")
        return topics

    @property
    def registry(self) -> str:
        return f"{self._prefix}_registry"

    @property
    def inboxes(self) -> str:
        return f"{self._prefix}_inboxes"

    def group(self, name: str) -> str:
        return self._prefix + name

    def transactions(self, client: str, group: str | None = None) -> str:
        """The transactional name of a client, or of its part in a group."""
        return self._prefix + (client if group is None else f"{group}.{client}")

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


def band_of(bounds: Sequence[int], priority: int) -> int:
    return max(0, bisect_right(bounds, priority) - 1)


def _written(found: re.Match[str]) -> str:
    text = found.group()
    return "__" if text == "_" else "".join(f"_{byte:02x}" for byte in text.encode())


def _read(written: str) -> str:
    """Raises UnicodeDecodeError."""
    return _WRITTEN.sub(lambda found: chr(_byte(found.group(1))), written).encode("latin-1", "strict").decode()


def _byte(text: str) -> int:
    return ord("_") if text == "_" else int(text, 16)
