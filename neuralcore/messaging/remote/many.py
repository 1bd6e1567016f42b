"""Publishing many at once: they share commits, keep their order, and fail one by one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from neuralcore.messaging.errors import PublishManyFailed
from neuralcore.messaging.middleware import Publication
from neuralcore.messaging.remote.outlet import Posted

__all__ = ["publish_many"]

Send = Callable[[Publication], Awaitable[Posted | str | None]]


async def publish_many(items: Iterable[tuple[Any, ...]], send: Send) -> Sequence[str | None]:
    """All are handed over in order before any is waited for, if ``send`` does not wait itself.

    Where ``items`` ends with an exception, what came before it is published.
    """
    results: list[str | None] = []
    errors: dict[int, BaseException] = {}
    under_way: dict[int, Posted] = {}
    following = enumerate(items)
    broken: BaseException | None = None
    try:
        while True:
            try:
                index, item = next(following)
            except StopIteration:
                break
            except BaseException as error:  # noqa: BLE001 - raised below
                broken = error
                break
            sent = await _attempt(_sent(send, item), index, errors)
            results.append(None if isinstance(sent, Posted) else sent)
            if isinstance(sent, Posted):
                under_way[index] = sent
        for index, each in under_way.items():
            results[index] = await _attempt(each.arrive(), index, errors)
    except BaseException:
        for each in under_way.values():
            each.withdraw()
        raise
    if broken is not None:
        raise broken
    if errors:
        raise PublishManyFailed(results, errors)
    return results


async def _sent(send: Send, item: tuple[Any, ...]) -> Posted | str | None:
    return await send(_publication(*item))


def _publication(
    channel: str, payload: Any, priority: int | None = None, options: dict[str, Any] | None = None
) -> Publication:
    return Publication(channel, payload, **{"priority": priority, **(options or {})})


async def _attempt(work: Awaitable[Any], index: int, errors: dict[int, BaseException]) -> Any:
    try:
        return await work
    except Exception as error:  # noqa: BLE001 - reported for its item, whatever it was
        errors[index] = error
        return None
