"""What the suite is run on: the columns of docs/conformance.md, in their order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["SETUPS", "Setup", "chosen"]


@dataclass(frozen=True, slots=True)
class Setup:
    name: str
    """The ``setup`` of its test class."""
    title: str
    test: str
    native: str = "1"
    """NEURALCORE_NATIVE: the core that messages are handled by."""


IN_PROCESS = "tests/conformance/test_{0}.py::Test{1}"
STORED = "tests/transports/{0}/test_conformance.py::Test{1}"

SETUPS = (
    Setup("native", "native", IN_PROCESS.format("native", "Native")),
    Setup("fallback", "fallback", IN_PROCESS.format("native", "Native"), native="0"),
    Setup("memory", "memory", IN_PROCESS.format("memory", "Memory")),
    Setup("sqlite", "SQLite", STORED.format("sqlite", "Sqlite")),
    Setup("redis-6.2", "Redis 6.2", STORED.format("redis", "Redis62")),
    Setup("redis-7.0", "Redis 7.0", STORED.format("redis", "Redis70")),
    Setup("redis-8.2", "Redis 8.2", STORED.format("redis", "Redis82")),
    Setup("redis-cluster", "Redis Cluster", STORED.format("redis", "Cluster")),
    Setup("kafka-one", "Kafka, one broker", STORED.format("kafka", "OneBroker")),
    Setup("kafka-partitions", "Kafka, four partitions", STORED.format("kafka", "Partitions")),
    Setup("kafka-three", "Kafka, three brokers", STORED.format("kafka", "ThreeBrokers")),
)


def chosen(words: Iterable[str]) -> list[Setup]:
    """``redis`` is all of Redis; no word, all there are. Raises LookupError for a word that means none."""
    found: set[Setup] = set()
    for word in words:
        meant = {each for each in SETUPS if each.name == word or each.name.startswith(f"{word}-")}
        if not meant:
            raise LookupError(f"no set-up is called {word}; there are {', '.join(each.name for each in SETUPS)}")
        found |= meant
    return [each for each in SETUPS if each in found or not found]
