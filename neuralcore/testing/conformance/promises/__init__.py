"""One module for each group of promises. Importing this package registers them all."""

from importlib import import_module

__all__ = ["GROUPS"]

GROUPS = (
    "intact",
    "isolation",
    "patterns",
    "groups",
    "concurrency",
    "settlement",
    "attempts",
    "retries",
    "order",
    "keys",
    "overflow",
    "bounds",
    "expiry",
    "delay",
    "requests",
    "lifecycle",
    "cancellation",
    "dedup",
    "positions",
    "seek",
    "retention",
    "store",
    "transactions",
    "registry",
    "stats",
    "reclaim",
    "crash",
    "restart",
)

for _group in GROUPS:
    import_module(f"{__name__}.{_group}")
