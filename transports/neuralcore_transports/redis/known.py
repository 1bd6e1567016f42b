"""What this client has seen of channels, so that it notices when the server has lost some of it."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Known", "Mark"]

Mark = tuple[int, int, int]
"""Of a channel's last entry the two parts of its id, and how many messages it has ever had."""


class Known:
    """A channel's incarnation ends when it is removed, or the server forgets it; its last id never goes back."""

    def __init__(self, lost: Callable[[str, bytes | None, str], None]) -> None:
        """``lost`` hears of a channel, of the incarnation that is gone, if it is, and of what has become of it."""
        self._lost = lost
        self._seen: dict[str, tuple[bytes, Mark]] = {}

    def mark(self, channel: str) -> Mark | None:
        """What is known before a command is sent: answers of several connections come in any order."""
        seen = self._seen.get(channel)
        return None if seen is None else seen[1]

    def see(self, channel: str, incarnation: bytes, found: bytes, mark: Mark | None, left: bytes | None = None) -> None:
        """What a command was answered that was sent when ``mark`` was known: what it found, and what it ``left``."""
        now = _mark(found)
        before = self._seen.get(channel)
        if before is not None and before[0] != incarnation:
            self._lost(
                channel, before[0], "the server had forgotten the channel with all its messages; it was made anew"
            )
            before = None
        elif mark is not None and _is_behind(now, mark):
            self._went_back(channel, mark, now)
            before = None
        now = now if left is None else _mark(left)
        self._seen[channel] = (incarnation, now if before is None else max(now, before[1]))

    def _went_back(self, channel: str, mark: Mark, now: Mark) -> None:
        self._lost(
            channel,
            None,
            "the server went back: it has given {2} ids up to {0}-{1}, and had told of ".format(*now)
            + "{2} up to {0}-{1}; the newest of those are lost".format(*mark),
        )

    def gone(self, channel: str) -> None:
        """The server does not know it any more."""
        before = self._seen.pop(channel, None)
        if before is not None:
            self._lost(channel, before[0], "the server has forgotten the channel with all its messages")

    def forget(self, channel: str) -> None:
        """It was removed on purpose."""
        self._seen.pop(channel, None)


def _is_behind(now: Mark, mark: Mark) -> bool:
    """Who has given later ids has given more of them: or those before were lost."""
    return now[:2] < mark[:2] or now[2] < mark[2] or (now[:2] > mark[:2] and now[2] == mark[2])


def _mark(text: bytes) -> Mark:
    entry, count = text.split(b" ")
    ms, _, number = entry.partition(b"-")
    return int(ms), int(number), int(count)
