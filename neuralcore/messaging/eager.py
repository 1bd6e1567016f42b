"""Coroutines that begin before they are awaited, so that a forgotten ``await`` loses nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Generator
from types import coroutine
from typing import Any

__all__ = ["begun"]


def begun(work: Awaitable[None] | None) -> Awaitable[None] | None:
    """Run it up to where it first waits. Answers what is left to await: nothing, mostly."""
    if not isinstance(work, Coroutine):
        return work
    try:
        awaited = work.send(None)
    except StopIteration:
        return None
    return _rest(work, awaited)


@coroutine
def _rest(work: Coroutine[Any, Any, None], awaited: Any) -> Generator[Any, Any, None]:
    """Go on with it as ``yield from`` would, from what it awaits already."""
    try:
        while True:
            try:
                sent = yield awaited
            except GeneratorExit:  # noqa: PERF203 - each wait may end in an error of its own
                work.close()
                raise
            except BaseException as error:  # noqa: BLE001 - handed to the one it is meant for
                awaited = work.throw(error)
            else:
                awaited = work.send(sent)
    except StopIteration:
        return
