"""Another Python event bus, https://pypi.org/project/bubus, when it is installed."""

from __future__ import annotations

import logging
import sys

from benchmarks._harness import Arm, Metrics, Watch
from benchmarks._sink import Sink

__all__ = ["bubus_arm"]

REQUIREMENT = "bubus==1.5.6"
WAVE = 10
"""It refuses more than 100 pending events and slows down with its history: small waves, a history of 2, suit it."""


def bubus_arm() -> tuple[tuple[Arm, ...], tuple[str, ...]]:
    """The arm, or why it is left out."""
    try:
        import bubus  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        old = "" if sys.version_info >= (3, 11) else " (needs Python 3.11)"
        return (), (f"left out: bubus is not installed; pip install {REQUIREMENT}{old}",)
    logging.getLogger("bubus").setLevel(logging.CRITICAL)

    class Published(bubus.BaseEvent[None]):  # type: ignore[misc, name-defined, unused-ignore]
        payload: dict[str, int]

    async def run(n: int, sink: Sink) -> Metrics:
        bus = bubus.EventBus(name="Bench", max_history_size=2)
        bus.on(Published, sink.awaited())
        with (watch := Watch()):
            for start in range(0, n, WAVE):
                for i in range(start, min(n, start + WAVE)):
                    bus.dispatch(Published(payload={"i": i}))
                await bus.wait_until_idle()
        await bus.stop(clear=True)
        return watch.per(n)

    return (Arm(name="bubus", run=run, share=0.004),), ()
