"""What a transaction says of itself when brokers do not answer; without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from neuralcore.messaging.errors import NotStored
from neuralcore_transports.kafka.publisher import Outgoing
from neuralcore_transports.kafka.transactor import InDoubt, Transactor

RECORD = Outgoing("t", 0, b"", None, [])
SILENCE = KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer"))


class Stored:
    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 7


class Library:
    """A producer whose records are answered for by ``flush``, unless brokers are silent."""

    def __init__(self, *, silent: bool = False, ends: bool = True) -> None:
        self.silent = silent
        self.ends = ends
        self.told: list[str] = []
        self._waiting: list[Callable[..., None]] = []

    def transactional(self, name: str) -> Library:
        return self

    def init_transactions(self, seconds: float) -> None:
        self.told.append("init")
        if self.silent and self.told.count("init") > 1:
            raise SILENCE

    def begin_transaction(self) -> None:
        pass

    def produce(self, *record: Any, on_delivery: Callable[..., None], headers: Any) -> None:
        self._waiting.append(on_delivery)

    def flush(self, seconds: float) -> int:
        if not self.silent:
            for each in self._waiting:
                each(None, Stored())
            self._waiting.clear()
        return len(self._waiting)

    def commit_transaction(self, seconds: float) -> None:
        self.told.append("commit")
        if self.silent or not self.ends:
            raise SILENCE

    def abort_transaction(self, seconds: float) -> None:
        self.told.append("abort")
        if self.silent:
            raise SILENCE


def transactor(library: Library) -> Transactor:
    clients: Any = library
    browser: Any = None
    return Transactor(clients, browser, "x", timeout=0.05, patience=0.05, where="here")


def test_what_is_answered_is_committed() -> None:
    library = Library()
    transactor(library).commit([RECORD])
    assert library.told == ["init", "commit"]


def test_records_that_nobody_answered_for_are_not_committed() -> None:
    """Of a transaction whose end was never asked for nothing can have happened."""
    library = Library(silent=True)
    with pytest.raises(NotStored, match="no broker answered for its records in time"):
        transactor(library).commit([RECORD])
    assert set(library.told) == {"init", "abort"}


def test_an_end_that_nobody_answered_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Transactor, "_is_there", lambda self, place: None)
    library = Library(ends=False)
    with pytest.raises(InDoubt, match="here: no answer"):
        transactor(library).commit([RECORD])
    assert library.told.count("init") == 2
