"""What this client has seen of channels, so that it notices when the server has lost some of it."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Known"]

_Mark = tuple[int, int]


class Known:
    """A channel's incarnation ends when it is removed, or the server forgets it; its last id never goes back."""

    def __init__(self, lost: Callable[[str, str], None]) -> None:
        """``lost`` hears of a channel and what has become of it."""
        self._lost = lost
        self._seen: dict[str, tuple[bytes, _Mark]] = {}

    def __contains__(self, channel: str) -> bool:
        return channel in self._seen

    def see(self, channel: str, incarnation: bytes, last: bytes) -> None:
        mark = _mark(last)
        before = self._seen.get(channel)
        self._seen[channel] = (incarnation, mark)
        if before is None:
            return
        if before[0] != incarnation:
            self._lost(channel, "the server had forgotten the channel with all its messages; it was made anew")
        elif mark < before[1]:
            self._lost(
                channel,
                f"the server went back from entry {before[1][0]}-{before[1][1]} to {mark[0]}-{mark[1]}: "
                "what was published in between is lost",
            )

    def gone(self, channel: str) -> None:
        """The server does not know it any more."""
        if self._seen.pop(channel, None) is not None:
            self._lost(channel, "the server has forgotten the channel with all its messages")

    def forget(self, channel: str) -> None:
        """It was removed on purpose."""
        self._seen.pop(channel, None)


def _mark(entry: bytes) -> _Mark:
    ms, _, number = entry.partition(b"-")
    return int(ms), int(number)
