"""What the demo shows: a live picture in a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from rich.box import SIMPLE
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from neuralcore.cli.demo.stopwatch import quantile
from neuralcore.cli.demo.story import CHANNELS, DEAD, Outcome, Story

__all__ = ["LiveScreen", "PlainScreen", "Screen", "SilentScreen", "closing"]

FRAME = 0.1
FEED = 8
STYLES = {"summary": "", "retry": "yellow", "urgent": "bold magenta", "dead": "red"}


class Screen(ABC):
    """Told of events by the agents; ``showing`` surrounds the run."""

    @abstractmethod
    def tell(self, kind: str, line: str) -> None: ...

    @contextmanager
    def showing(self, story: Story) -> Iterator[None]:
        yield


class SilentScreen(Screen):
    def tell(self, kind: str, line: str) -> None:
        """``--json`` prints one document at the end."""


class PlainScreen(Screen):
    """Where nothing can be redrawn: one line per event, and of the summaries only some."""

    def __init__(self, console: Console, *, every: int = 20) -> None:
        self._console = console
        self._every = every
        self._summaries = 0

    def tell(self, kind: str, line: str) -> None:
        if kind == "summary":
            self._summaries += 1
            if self._summaries % self._every:
                return
            line = f"{self._summaries} done; {line}"
        self._console.print(Text(f"{kind:<8} {line}"), soft_wrap=True)


class LiveScreen(Screen):
    def __init__(self, console: Console) -> None:
        self._console = console
        self._feed: deque[Text] = deque(maxlen=FEED)

    def tell(self, kind: str, line: str) -> None:
        self._feed.append(Text(f"{kind:<8} {line}", style=STYLES[kind], overflow="ellipsis", no_wrap=True))

    @contextmanager
    def showing(self, story: Story) -> Iterator[None]:
        with Live(self._picture(story), console=self._console, auto_refresh=False, transient=True) as live:
            drawing = asyncio.get_running_loop().create_task(self._draw(story, live))
            try:
                yield
            finally:
                drawing.cancel()

    async def _draw(self, story: Story, live: Live) -> None:
        while True:
            live.update(self._picture(story), refresh=True)
            await asyncio.sleep(FRAME)

    def _picture(self, story: Story) -> Group:
        table = Table("channel", box=SIMPLE, expand=True)
        for name in ("sent", "handled", "waiting", "failed"):
            table.add_column(name, justify="right")
        published = story.bus.metrics().channels
        for channel in CHANNELS:
            lap, waiting = story.watch.laps[channel], story.bus.queue_size(channel)
            sent = published[channel].published if channel in published else 0
            table.add_row(channel, str(sent), str(lap.handled), str(waiting), str(lap.failed))
        done, all_of_it = len(story.team.digest), story.total + 1
        read = Text(f"{done} of {all_of_it} passages read")
        return Group(table, *self._feed, Text(), read, ProgressBar(total=all_of_it, completed=done))


def closing(console: Console, story: Story, outcome: Outcome, core: str) -> None:
    """The table of counts and latencies, and the verdict."""
    title = f"{outcome.seconds:.1f} s on the {core} core; latencies in milliseconds"
    table = Table(box=SIMPLE, pad_edge=False, collapse_padding=True, title=title)
    table.add_column("channel", no_wrap=True)
    for name in ("sent", "handled", "failed", "wait p50", "wait p99", "work p50", "work p99"):
        table.add_column(name, justify="right")
    for channel in CHANNELS:
        lap = story.watch.laps[channel]
        counts = (outcome.metrics.channels[channel].published, lap.handled, lap.failed)
        times = (quantile(values, share) for values in (lap.waited, lap.worked) for share in (0.5, 0.99))
        table.add_row(channel, *map(str, counts), *map(_milliseconds, times))
    console.print(table)
    console.print(
        f"The urgent question went past {outcome.passed} waiting messages; {story.team.stumbled} failed attempts were "
        f"retried; {len(story.team.buried)} page is a dead letter on {DEAD}."
    )
    for check in outcome.checks:
        if not check.ok:
            console.print(Text(f"WRONG: {check.name}: {check.detail}", style="bold red"))
    if outcome.ok:
        console.print(f"All {len(outcome.checks)} sums add up.")


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.2f}"
