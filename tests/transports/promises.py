"""Which promises of the public suite a further server of a kind is asked for, when another one is asked for all."""

from __future__ import annotations

import os

import pytest

from neuralcore.testing.conformance.suite import catalogue

__all__ = ["some"]


def some(*wanted: str) -> pytest.MarkDecorator:
    """These groups of promises, or single ones; all of them with NEURALCORE_CONFORMANCE=long."""
    long = os.environ.get("NEURALCORE_CONFORMANCE") == "long"
    found = [each for each in catalogue() if long or each.group in wanted or str(each) in wanted]
    return pytest.mark.parametrize("promise", found, ids=str)
