"""Every promise of the suite, in the order of the report."""

from __future__ import annotations

from neuralcore.testing.conformance import promises
from neuralcore.testing.conformance.promise import Promise, registered

__all__ = ["catalogue"]


def catalogue() -> tuple[Promise, ...]:
    order = {group: place for place, group in enumerate(promises.GROUPS)}
    return tuple(sorted(registered(), key=lambda promise: order.get(promise.group, len(order))))
