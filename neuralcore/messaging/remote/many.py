"""Publishing many at once: they share commits, keep their order, and fail one by one."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from neuralcore.messaging.context import BusContext
from neuralcore.messaging.errors import PublishManyFailed
from neuralcore.messaging.remote.batch import Batch
from neuralcore.messaging.remote.committer import Committer
from neuralcore.messaging.remote.outlet import Outlet, Posted
from neuralcore.messaging.remote.work import Done

__all__ = ["PublishMany"]


class PublishMany:
    """One call. ``through``: the middleware, which sees each item arrive before the next one sets out."""

    def __init__(
        self,
        context: BusContext,
        committer: Committer,
        outlet: Callable[[str], Outlet],
        through: Callable[..., Awaitable[str | None]] | None,
    ) -> None:
        self._context = context
        self._committer = committer
        self._outlet = outlet
        self._through = through
        self._results: list[str | None] = []
        self._errors: dict[int, BaseException] = {}
        self._batch: Batch | None = None
        """What is not handed over yet."""
        self._batches: deque[Batch] = deque()
        self._posted: dict[int, Posted] = {}

    async def __call__(self, items: Iterable[tuple[Any, ...]]) -> Sequence[str | None]:
        """All are handed over in order before any is waited for, if no limit makes them wait.

        Where ``items`` ends with an exception, what came before it is published.
        """
        broken: BaseException | None = None
        following = enumerate(items)
        try:
            while True:
                try:
                    place, item = next(following)
                except StopIteration:
                    break
                except BaseException as error:  # noqa: BLE001 - raised below
                    broken = error
                    break
                self._results.append(None)
                try:
                    waiting = self._send(place, *item)
                    if waiting is not None:
                        await waiting
                except Exception as error:  # noqa: BLE001 - reported for its item, whatever it was
                    self._errors[place] = error
            self._hand_over()
            await self._arrive()
        except BaseException:
            self._withdraw()
            raise
        if broken is not None:
            raise broken
        if self._errors:
            raise PublishManyFailed(self._results, self._errors)
        return self._results

    def _send(
        self, place: int, channel: str, payload: Any, priority: int | None = None, options: dict[str, Any] | None = None
    ) -> Awaitable[None] | None:
        options = {"priority": priority, **options} if options else {"priority": priority}
        if self._through is not None:
            return self._alone(place, self._through(channel, payload, **options))
        outlet = self._outlet(channel)
        if not outlet.idle:
            self._hand_over()
            return self._admitted(place, outlet.post_admitted(payload, **options))
        began = self._context.clock.monotonic_ns()
        try:
            envelope = outlet.envelope(payload, **options)
        except BaseException:
            outlet.count("refused", began)
            raise
        if self._batch is None:
            self._batch = Batch(self._context, began)
        if self._batch.add(place, outlet, payload, envelope):
            self._hand_over()
        return None

    async def _alone(self, place: int, publishing: Awaitable[str | None]) -> None:
        self._results[place] = await publishing

    async def _admitted(self, place: int, posting: Awaitable[Posted]) -> None:
        self._posted[place] = await posting

    def _hand_over(self) -> None:
        if self._batch is not None:
            batch, self._batch = self._batch, None
            self._batches.append(batch)
            try:
                self._committer.submit(batch)
            except Exception as error:  # noqa: BLE001 - its items': the home loop has ended
                batch.done(Done(error=error))

    async def _arrive(self) -> None:
        while self._batches:
            await self._batches.popleft().arrive(self._results, self._errors)
        for place in list(self._posted):
            try:
                self._results[place] = await self._posted.pop(place).arrive()
            except Exception as error:  # noqa: BLE001, PERF203 - reported for its item
                self._errors[place] = error

    def _withdraw(self) -> None:
        """What nobody has awaited."""
        if self._batch is not None:
            self._batch.withdraw()
        left: list[Batch | Posted] = [*self._batches, *self._posted.values()]
        for each in left:
            each.withdraw()
