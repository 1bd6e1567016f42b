"""The core in pure Python, with exactly the surface of ``neuralcore._native``.

It is what runs where no native module can be built. Slower, but it keeps the same promises.
"""

from typing import Final, Literal

from neuralcore.fallback.bucket import TokenBucket
from neuralcore.fallback.clock import Clock
from neuralcore.fallback.histogram import HISTOGRAM_BOUNDS_NS, Histogram
from neuralcore.fallback.mailbox import Mailbox
from neuralcore.fallback.message import Message
from neuralcore.fallback.pump import Pump
from neuralcore.fallback.route import Route
from neuralcore.fallback.router import Router
from neuralcore.fallback.settler import Overflow, Settler
from neuralcore.fallback.stats import MailboxStats, RouteStats

__all__ = [
    "DEBUG_BUILD",
    "HISTOGRAM_BOUNDS_NS",
    "IMPLEMENTATION",
    "Clock",
    "Histogram",
    "Mailbox",
    "MailboxStats",
    "Message",
    "Overflow",
    "Pump",
    "Route",
    "RouteStats",
    "Router",
    "Settler",
    "TokenBucket",
]

IMPLEMENTATION: Final[Literal["native", "fallback"]] = "fallback"
DEBUG_BUILD: Final[bool] = False
