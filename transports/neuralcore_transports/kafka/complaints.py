"""Tells of a group's commits that fail: loudly, though not each time, when they will not come right by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from confluent_kafka import KafkaError

from neuralcore_transports.kafka.administration import Place
from neuralcore_transports.kafka.clients import log
from neuralcore_transports.kafka.errors import is_refusing

__all__ = ["Complaints"]

_LASTING: Final = 30.0
"""Seconds after which what should have passed has not."""
_AGAIN: Final = 60.0
"""Seconds between two complaints of the same."""

_ROOM: Final = "set offset.metadata.max.bytes of the brokers to 4096, which is their default, or more"
_MENDING: Final = {
    KafkaError.GROUP_AUTHORIZATION_FAILED: "give this client the right to Read the group",
    KafkaError.INVALID_COMMIT_OFFSET_SIZE: _ROOM,
    KafkaError.OFFSET_METADATA_TOO_LARGE: _ROOM,
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "give this client the right to Read the topics",
}
_LOOK: Final = "look at the brokers' logs for why"


class Complaints:
    """Of one group, whose commits go on being tried whatever is said of them."""

    def __init__(self, group: str, count: Callable[[str], None], now: Callable[[], float]) -> None:
        """``count`` adds to the counters ``commits_failed`` and ``commits_refused``; ``now`` is monotonic seconds."""
        self._group = group
        self._count = count
        self._now = now
        self._since: dict[Place, float] = {}
        """When the first of those commits failed of which none has been taken since."""
        self._loud: set[Place] = set()
        """Of which somebody was told."""
        self._told: dict[int, float] = {}
        """When each kind of error was told."""

    def failed(self, errors: dict[Place, KafkaError]) -> None:
        """One commit, in these places."""
        now = self._now()
        self._count("commits_failed")
        for place in errors:
            self._since.setdefault(place, now)
        loud = {place: error for place, error in errors.items() if self._is_loud(place, error, now)}
        if any(is_refusing(error) for error in errors.values()):
            self._count("commits_refused")
        for error in {each.code(): each for each in loud.values()}.values():
            self._complain(error, [place for place in loud if loud[place].code() == error.code()], now)
        self._loud.update(loud)
        if not loud:
            error = next(iter(errors.values()))
            log.info("a commit of %s failed, it is tried again: %s", self._group, error.str())

    def _is_loud(self, place: Place, error: KafkaError, now: float) -> bool:
        return is_refusing(error) or now - self._since[place] >= _LASTING

    def _complain(self, error: KafkaError, places: list[Place], now: float) -> None:
        if now - self._told.get(error.code(), -_AGAIN) < _AGAIN:
            return
        self._told[error.code()] = now
        log.warning(
            "commits of %s on %s fail: %s. Until they are taken, which is tried all the time, nothing more of that is "
            "handed out, and after a restart what was settled meanwhile comes again. To mend it, %s",
            self._group,
            ", ".join(sorted({topic for topic, _ in places})),
            error.str(),
            _MENDING.get(error.code(), _LOOK),
        )

    def worked(self, place: Place) -> None:
        self._since.pop(place, None)
        if place in self._loud:
            self._loud.discard(place)
            if not self._loud:
                self._told.clear()
                log.warning("commits of %s are taken again", self._group)

    def gone(self, place: Place) -> None:
        """It is not this process's any more."""
        self._since.pop(place, None)
        self._loud.discard(place)
