"""Runs the demo and reports it."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console

from neuralcore._core import IMPLEMENTATION
from neuralcore.cli.demo.screen import LiveScreen, PlainScreen, Screen, SilentScreen, closing
from neuralcore.cli.demo.stopwatch import quantile
from neuralcore.cli.demo.story import CHANNELS, Outcome, Story
from neuralcore.cli.interrupt import interruptible

__all__ = ["demo", "document"]


def demo(console: Console, *, seconds: float, as_json: bool) -> tuple[bool, dict[str, Any]]:
    """Whether all sums add up, and the document for ``--json``. Raises KeyboardInterrupt once the bus is closed."""
    screen = _screen(console, as_json)

    async def main() -> tuple[Story, Outcome]:
        story = Story(seconds=seconds, tell=screen.tell)
        with screen.showing(story):
            return story, await story.run()

    story, outcome = interruptible(main())
    if not as_json:
        closing(console, story, outcome, IMPLEMENTATION)
    return outcome.ok, document(story, outcome)


def document(story: Story, outcome: Outcome) -> dict[str, Any]:
    return {
        "ok": outcome.ok,
        "core": IMPLEMENTATION,
        "python": sys.version.split()[0],
        "seconds": outcome.seconds,
        "pages": len(story.texts),
        "passages": story.total,
        "overtaken_by_urgent": outcome.passed,
        "retried": outcome.metrics.retried,
        "dead_letters": len(story.team.buried),
        "channels": {channel: _channel(story, outcome, channel) for channel in CHANNELS},
        "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in outcome.checks],
        "summaries": [{"page": summary.page, "sentence": summary.sentence} for summary in story.team.digest[-5:]],
    }


def _channel(story: Story, outcome: Outcome, channel: str) -> dict[str, Any]:
    lap = story.watch.laps[channel]
    times = {
        f"{name}_{label}": quantile(values, share)
        for name, values in (("wait", lap.waited), ("work", lap.worked))
        for label, share in (("p50", 0.5), ("p99", 0.99))
    }
    published = outcome.metrics.channels[channel].published
    return {"published": published, "handled": lap.handled, "failed": lap.failed, **times}


def _screen(console: Console, as_json: bool) -> Screen:
    if as_json:
        return SilentScreen()
    return LiveScreen(console) if console.is_terminal else PlainScreen(console)
