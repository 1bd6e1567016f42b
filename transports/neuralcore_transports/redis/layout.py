"""The names of keys and topics. docs/redis.md shows them all; the scripts add what follows a channel's base."""

from __future__ import annotations

from neuralcore.messaging.names import DEAD_LETTER_PREFIX

__all__ = ["Layout"]


class Layout:
    """Braces mark what decides a key's slot in a cluster: a channel and its dead letters are in one slot."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.registry = f"{prefix}:{{registry}}"
        self.news = f"{prefix}:bell"
        """The topic of what all clients are told."""
        self._begins = len(prefix) + 1

    def base(self, channel: str) -> str:
        if channel.startswith(DEAD_LETTER_PREFIX):
            origin = channel.removeprefix(DEAD_LETTER_PREFIX)
            return f"{self.prefix}:{DEAD_LETTER_PREFIX}{{{_quoted(origin)}}}"
        return f"{self.prefix}:{{{_quoted(channel)}}}"

    def channel(self, base: str) -> str:
        """The channel of a base."""
        before, _, tag = base[self._begins : -1].partition("{")
        return before + _unquoted(tag)

    def stream(self, channel: str, priority: int) -> str:
        return f"{self.base(channel)}:p:{priority}"

    def bell(self, session: str) -> str:
        """The topic of what one client is told."""
        return f"{self.prefix}:bell:{session}"


def _quoted(text: str) -> str:
    """A closing brace would end what decides the slot."""
    return text.replace("%", "%25").replace("}", "%7D").replace("{", "%7B")


def _unquoted(text: str) -> str:
    return text.replace("%7B", "{").replace("%7D", "}").replace("%25", "%")
