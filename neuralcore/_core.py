"""Chooses the core: the native one, or the pure Python one where that is missing or was asked for."""

import os
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuralcore._native import (
        DEBUG_BUILD,
        HISTOGRAM_BOUNDS_NS,
        IMPLEMENTATION,
        Clock,
        Histogram,
        Mailbox,
        MailboxStats,
        Message,
        Overflow,
        Pump,
        Route,
        Router,
        RouteStats,
        Settler,
        TokenBucket,
    )
else:
    from importlib import import_module
    from typing import Literal, Protocol

    if os.environ.get("NEURALCORE_NATIVE") == "0":
        from neuralcore import fallback as _chosen

        _why = "the native core is switched off by NEURALCORE_NATIVE=0; unset it to get it back"
    else:
        try:
            _chosen = import_module("neuralcore._native")
        except ImportError as error:
            from neuralcore import fallback as _chosen

            _why = (
                f"the native core is missing ({error}), so the slower one in pure Python runs; install a wheel of "
                "neuralcore-runtime, or build it with `maturin develop --release`"
            )
        else:
            _why = None
    if _why is not None:
        warnings.warn(f"neuralcore: {_why}", RuntimeWarning, stacklevel=2)

    IMPLEMENTATION = _chosen.IMPLEMENTATION
    DEBUG_BUILD = _chosen.DEBUG_BUILD
    HISTOGRAM_BOUNDS_NS = _chosen.HISTOGRAM_BOUNDS_NS
    Clock = _chosen.Clock
    Histogram = _chosen.Histogram
    Mailbox = _chosen.Mailbox
    MailboxStats = _chosen.MailboxStats
    Message = _chosen.Message
    Pump = _chosen.Pump
    Route = _chosen.Route
    RouteStats = _chosen.RouteStats
    Router = _chosen.Router
    TokenBucket = _chosen.TokenBucket
    Overflow = Literal["block", "drop_new", "drop_old", "reject"]

    class Settler(Protocol):
        """See the stub of the native module."""


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
    "is_native_available",
]


def is_native_available() -> bool:
    """Whether the native core is the one in use."""
    return IMPLEMENTATION == "native"
