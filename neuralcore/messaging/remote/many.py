"""Publishing many at once: they share commits, keep their order, and fail one by one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from neuralcore.messaging.errors import PublishManyFailed
from neuralcore.messaging.remote.outlet import Posted

__all__ = ["publish_many"]

Send = Callable[..., Posted | Awaitable[Posted | str | None]]


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
            results.append(None)
            try:
                sending = _sent(send, *item)
                sent = sending if isinstance(sending, Posted) else await sending
            except Exception as error:  # noqa: BLE001 - reported for its item, whatever it was
                errors[index] = error
                continue
            if isinstance(sent, Posted):
                under_way[index] = sent
            else:
                results[index] = sent
        for index, each in under_way.items():
            try:
                results[index] = each.result() if each.has_arrived else await each.arrive()
            except Exception as error:  # noqa: BLE001, PERF203 - as above
                errors[index] = error
    except BaseException:
        for each in under_way.values():
            each.withdraw()
        raise
    if broken is not None:
        raise broken
    if errors:
        raise PublishManyFailed(results, errors)
    return results


def _sent(
    send: Send, channel: str, payload: Any, priority: int | None = None, options: dict[str, Any] | None = None
) -> Posted | Awaitable[Posted | str | None]:
    return send(channel, payload, **{"priority": priority, **options} if options else {"priority": priority})
