"""Notices a handler that blocks its event loop, and says which: everything else on that loop waits for it.

One thread looks at the loops that workers run on. It leaves those alone that are idle or between two tasks. One that is
inside a task is asked to call back; a task that keeps it from doing so for too long is named, once.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from types import FrameType
from typing import Any, Final, Protocol

from neuralcore.messaging.context import log
from neuralcore.messaging.forking import NoFork, tell_after_fork

__all__ = ["Watchdog", "watchdog"]

_PATIENCE: Final = 1.0
_LOOKS: Final = 4
"""While the patience lasts: a process that was stopped for a while is not taken for one that blocks."""
_FRAMES: Final = 6


class Watched(Protocol):
    """Workers, on one loop."""

    loop: asyncio.AbstractEventLoop
    name: str
    thread: int

    def owns(self, task: asyncio.Task[Any] | None) -> bool: ...


class _Question:
    """A call back that a loop was asked for when it was inside this task."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.answered = False
        self.looks = 0

    def answer(self) -> None:
        self.answered = True


class Watchdog:
    """From any thread. Its own thread runs for as long as there is something to watch."""

    def __init__(self, *, patience: float = _PATIENCE) -> None:
        self.patience = patience
        self._lock = NoFork()
        self._watched: weakref.WeakSet[Watched] = weakref.WeakSet()
        self._asked: dict[asyncio.AbstractEventLoop, _Question] = {}
        self._thread: threading.Thread | None = None
        tell_after_fork(self)

    def watch(self, workers: Watched) -> None:
        with self._lock:
            self._watched.add(workers)
            if self._thread is None:
                self._thread = self._started()

    def forget(self, workers: Watched) -> None:
        with self._lock:
            self._watched.discard(workers)

    def forked(self) -> None:
        """In the child: the thread and the loops are its parent's."""
        self._watched.clear()
        self._asked.clear()
        self._thread = None

    def _started(self) -> threading.Thread | None:
        thread = threading.Thread(target=self._run, name="neuralcore watchdog", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter ends: handlers run all the same
            return None
        return thread

    def _run(self) -> None:
        while watched := self._still_watched():
            self._look(watched)
            del watched
            time.sleep(self.patience / _LOOKS)

    def _still_watched(self) -> list[Watched]:
        with self._lock:
            watched = [each for each in self._watched if not each.loop.is_closed()]
            if not watched:
                self._thread = None
                self._asked.clear()
            return watched

    def _look(self, watched: Iterable[Watched]) -> None:
        loops = {each.loop: each.thread for each in watched}
        for loop in self._asked.keys() - loops.keys():
            del self._asked[loop]
        for loop, thread in loops.items():
            task = asyncio.current_task(loop)
            if task is None:
                self._asked.pop(loop, None)
            elif self._overdue(loop, task):
                self._tell(loop, task, thread, [each.name for each in watched if each.owns(task)])

    def _overdue(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> bool:
        """The same task, at every look since the loop was asked. True once."""
        question = self._asked.get(loop)
        if question is None or question.answered or question.task is not task:
            self._ask(loop, task)
            return False
        question.looks += 1
        return question.looks == _LOOKS

    def _ask(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        question = _Question(task)
        try:
            loop.call_soon_threadsafe(question.answer)
        except RuntimeError:  # it was closed meanwhile, or is one of virtual time
            self._asked.pop(loop, None)
        else:
            self._asked[loop] = question

    def _tell(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any], thread: int, handlers: list[str]) -> None:
        stack = _inside(sys._current_frames().get(thread))
        if asyncio.current_task(loop) is not task:
            return
        what = f"the handler {handlers[0]}" if handlers else f"the task {task.get_name()}"
        log.warning(
            "%s blocks its event loop for more than %g s, and everything else on it waits: await what takes long, or"
            " make the handler a plain function, which runs in a thread\n%s",
            what,
            self.patience,
            stack,
        )


def _inside(frame: FrameType | None) -> str:
    """Where the task is, below the loop that runs it."""
    stack = traceback.extract_stack(frame) if frame is not None else []
    own = list(takewhile(lambda each: Path(each.filename).parent.name != "asyncio", reversed(stack)))
    return "".join(traceback.format_list(reversed(own[:_FRAMES]))).rstrip()


watchdog: Final = Watchdog()
