"""What pending tasks wait for, readable: the whole chain of awaits, not only its outermost frame."""

from __future__ import annotations

import asyncio
import linecache
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

__all__ = ["describe", "frames"]


def describe(tasks: Iterable[asyncio.Task[Any]]) -> str:
    """One paragraph a task, sorted by name."""
    return "\n".join(_paragraph(task) for task in sorted(tasks, key=lambda t: t.get_name())) or "  (none)"


def frames(awaited: Any) -> Iterator[FrameType]:
    """From the outermost coroutine to the innermost one that is suspended."""
    before = None
    while awaited is not None:
        frame = _first(awaited, "cr_frame", "gi_frame", "ag_frame")
        if frame is not None and frame is not before:
            yield frame
        before = frame
        awaited = _first(awaited, "cr_await", "gi_yieldfrom", "ag_await")


def _first(awaited: Any, *names: str) -> Any:
    return next((found for name in names if (found := getattr(awaited, name, None)) is not None), None)


def _paragraph(task: asyncio.Task[Any]) -> str:
    coro: Any = task.get_coro()
    lines = [f"  {task.get_name()}: {getattr(coro, '__qualname__', coro)!s}"]
    for frame in frames(coro):
        path, line = frame.f_code.co_filename, frame.f_lineno
        source = linecache.getline(path, line, frame.f_globals).strip()
        lines.append(f'    File "{path}", line {line}, in {frame.f_code.co_name}\n      {source}')
    return "\n".join(lines)
