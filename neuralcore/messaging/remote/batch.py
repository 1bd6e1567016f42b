"""Publishes that are handed over as one: they share a commit, and are answered together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from neuralcore.messaging.context import BusContext
from neuralcore.messaging.remote.work import Awaited, Done, Work
from neuralcore.messaging.transport import Envelope, PublishStatus

if TYPE_CHECKING:
    from neuralcore.messaging.remote.outlet import Outlet

__all__ = ["MOST_BYTES", "MOST_ITEMS", "Batch"]

MOST_ITEMS = 1024
MOST_BYTES = 4 * 1024 * 1024

_STORED = Done(PublishStatus.STORED)


@final
class Batch(Awaited[Sequence[Done]]):
    __slots__ = ("_answers", "_began", "_bytes", "_left", "_outlets", "_payloads", "_places", "publishes")

    def __init__(self, context: BusContext, began: int) -> None:
        super().__init__(context)
        self.publishes: list[Envelope] = []
        self._places: list[int] = []
        self._outlets: list[Outlet] = []
        self._payloads: list[Any] = []
        self._began = began
        self._bytes = 0
        self._answers: list[Done] = []
        self._left = 0
        """Answers that are still to come."""

    def add(self, place: int, outlet: Outlet, payload: Any, envelope: Envelope) -> bool:
        """``place``: among all that its publisher has. Whether that is as much as one commit takes."""
        self.publishes.append(envelope)
        self._places.append(place)
        self._outlets.append(outlet)
        self._payloads.append(payload)
        self._bytes += len(envelope.body)
        return len(self.publishes) >= MOST_ITEMS or self._bytes >= MOST_BYTES

    @property
    def items(self) -> int:
        return len(self.publishes)

    @property
    def size(self) -> int:
        return self._bytes

    # From the home loop

    def done(self, result: Done) -> None:
        """The same for all of them."""
        self._tell([result] * len(self.publishes))

    def answer(self, statuses: Sequence[PublishStatus], reasons: Mapping[int, str]) -> Sequence[tuple[Work, Done]]:
        """One status each, and the reasons of refusals. What is not decided by that goes on by itself."""
        if statuses.count(PublishStatus.STORED) == len(statuses):
            self.done(_STORED)
            return ()
        self._answers = [
            _STORED if status is PublishStatus.STORED else Done(status, reason=reasons.get(index, ""))
            for index, status in enumerate(statuses)
        ]
        undecided: list[tuple[Work, Done]] = [
            (_Part(self, index), done)
            for index, done in enumerate(self._answers)
            if done.published in (PublishStatus.FULL, PublishStatus.UNKNOWN)
        ]
        self._left = len(undecided)
        if not undecided:
            self._tell(self._answers)
        return undecided

    def parts(self) -> Sequence[Work]:
        """Each goes on by itself."""
        self._left = len(self.publishes)
        self._answers = [_STORED] * self._left
        return [_Part(self, index) for index in range(self._left)]

    def decide(self, index: int, done: Done) -> None:
        self._answers[index] = done
        self._left -= 1
        if not self._left:
            self._tell(self._answers)

    # From its own

    def withdraw(self) -> None:
        """Nobody is going to await it."""
        self._withdrawn = True
        self._count(self._all("refused"))

    async def arrive(self, results: list[str | None], errors: dict[int, BaseException]) -> None:
        """Put every item's id, or None when it was dropped, or what it failed with, into its place."""
        try:
            answers = await self.arrival()
        except BaseException:
            self.withdraw()
            raise
        counts = self._all("published")
        items = zip(self._places, self.publishes, answers, self._outlets, self._payloads, strict=True)
        for place, envelope, done, outlet, payload in items:
            if done is _STORED:
                results[place] = envelope.id
                continue
            what = "refused"
            try:
                results[place] = outlet.result(envelope, payload, done)
                what = "dropped" if results[place] is None else "published"
            except Exception as error:  # noqa: BLE001 - reported for its item, whatever it was
                errors[place] = error
            counts[outlet, "published"] -= 1
            counts[outlet, what] += 1
        self._count(counts)

    def _all(self, what: str) -> Counter[tuple[Outlet, str]]:
        return Counter({(outlet, what): amount for outlet, amount in Counter(self._outlets).items()})

    def _count(self, counts: Counter[tuple[Outlet, str]]) -> None:
        for (outlet, what), amount in counts.items():
            if amount:
                outlet.count(what, self._began, amount)


class _Part(Work):
    """One of them."""

    __slots__ = ("_batch", "_index")

    def __init__(self, batch: Batch, index: int) -> None:
        super().__init__(batch.publishes[index])
        self._batch = batch
        self._index = index

    def done(self, result: Done) -> None:
        self._batch.decide(self._index, result)

    def withdrawn(self) -> bool:
        return self._batch.withdrawn()
