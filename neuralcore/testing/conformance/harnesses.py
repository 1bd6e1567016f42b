"""Chooses the harness for a URL."""

from __future__ import annotations

from neuralcore.testing.conformance.harness import Harness
from neuralcore.testing.conformance.real import UrlHarness
from neuralcore.testing.conformance.virtual import MemoryHarness, NativeHarness

__all__ = ["harness_for"]


def harness_for(url: str) -> Harness:
    """Virtual time for the transports that come with NeuralCore and live in one process, real time for all others."""
    scheme = url.partition("://")[0].lower()
    if scheme == "native":
        return NativeHarness()
    if scheme == "memory":
        return MemoryHarness()
    return UrlHarness(url)
