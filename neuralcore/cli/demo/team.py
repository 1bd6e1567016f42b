"""The agents. Each is a handler; what they know of each other is the names of the channels.

text.page ─ splitter ─▶ text.passage ─ scorers ─▶ text.scored ─ summarisers ─▶ text.summary ─ archivist
               │                          │ ▲
               ▼                          ▼ │ request/reply
         _dlq.text.page ─ undertaker    library.rarity ─ librarian            text.* ─ auditor (in batches)
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from textwrap import shorten

import msgspec

from neuralcore.cli.demo.text import Page, Passage, passages, words
from neuralcore.messaging import Message, MessageBus, Priority, Reject, RetryPolicy

__all__ = ["PAGE", "PASSAGE", "RARITY", "SCORED", "SUMMARY", "Scored", "Summary", "Team"]

PAGE, PASSAGE, SCORED, SUMMARY = "text.page", "text.passage", "text.scored", "text.summary"
RARITY = "library.rarity"
SCORERS, SUMMARISERS = 4, 2
SENTENCE = 110
"""Characters."""
STUMBLE = 12
"""The archive is busy at the first attempt of every so-many-th summary."""

Tell = Callable[[str, str], None]
"""Called with a kind (summary, urgent, retry, dead) and a line of text."""


class Scored(msgspec.Struct, frozen=True):
    passage: Passage
    score: float


class Summary(msgspec.Struct, frozen=True):
    page: str
    number: int
    sentence: str
    urgent: bool


class Team:
    def __init__(self, bus: MessageBus, tell: Tell, *, thought: float) -> None:
        """``thought``: seconds a summariser thinks about a passage, as a model would."""
        self._bus = bus
        self._tell = tell
        self._thought = thought
        self._seen: Counter[str] = Counter()
        self._arrivals = itertools.count(1)
        self.split = 0
        self.scored = 0
        self.started: list[Priority | int] = []
        self.digest: list[Summary] = []
        self.stumbled = 0
        self.buried: list[Message] = []
        self.audited: Counter[str] = Counter()
        self.changed = asyncio.Event()

    def hire(self) -> None:
        subscribe = self._bus.subscribe
        subscribe(PAGE, self.splitter, group="splitters")
        subscribe(PASSAGE, self.scorer, group="scorers", concurrency=SCORERS)
        subscribe(RARITY, self.librarian)
        subscribe(SCORED, self.summariser, group="summarisers", concurrency=SUMMARISERS)
        subscribe(SUMMARY, self.archivist, group="archive", retry=RetryPolicy(max_attempts=3, base=0.2))
        subscribe("_dlq.>", self.undertaker)
        subscribe("text.*", self.auditor, broadcast=True, batch=50)

    async def splitter(self, page: Page) -> None:
        if not words(page.text):
            raise Reject("no readable text")
        for passage in passages(page):
            self.split += 1
            await self._bus.publish(PASSAGE, passage)

    async def scorer(self, passage: Passage) -> None:
        rarity: float = await self._bus.request(RARITY, words(passage.text), timeout=10.0)
        self.scored += 1
        self._notify()
        await self._bus.publish(SCORED, Scored(passage, rarity), priority=_urgency(rarity))

    async def librarian(self, asked: list[str]) -> float:
        """How rare these words are, from 0 to 1. What a handler returns is the reply."""
        rarity = sum(1 / (1 + self._seen[word]) for word in asked) / (len(asked) or 1)
        self._seen.update(asked)
        return rarity

    async def summariser(self, scored: Scored, message: Message) -> None:
        self.started.append(message.priority)
        urgent = message.priority == Priority.CRITICAL
        await asyncio.sleep(0 if urgent else self._thought)
        passage = scored.passage
        summary = Summary(passage.page, passage.number, self._best_sentence(passage.text), urgent)
        await self._bus.publish(SUMMARY, summary, priority=message.priority)

    async def archivist(self, summary: Summary, message: Message) -> None:
        if message.attempt == 1 and next(self._arrivals) % STUMBLE == 0:
            self.stumbled += 1
            self._tell("retry", f"the archive is busy; {summary.page} comes back later")
            raise OSError("the archive is busy")
        self.digest.append(summary)
        self._tell("urgent" if summary.urgent else "summary", f"{summary.page}: {summary.sentence}")
        self._notify()

    async def undertaker(self, message: Message) -> None:
        self.buried.append(message)
        reason, error = message.headers["nc-dlq-reason"], message.headers.get("nc-dlq-error", "")
        self._tell("dead", f"{message.payload.title} ({reason}: {error})")
        self._notify()

    async def auditor(self, messages: list[Message]) -> None:
        self.audited.update(message.channel for message in messages)
        self._notify()

    def _notify(self) -> None:
        self.changed.set()

    def _best_sentence(self, text: str) -> str:
        sentences = [s.strip() for s in text.replace("\n", " ").split(". ") if len(s) > 20] or [text]
        best = max(sentences, key=lambda s: sum(1 / (1 + self._seen[word]) for word in words(s)))
        return shorten(best, SENTENCE, placeholder=" …")


def _urgency(score: float) -> Priority:
    if score > 0.5:
        return Priority.HIGH
    return Priority.NORMAL if score > 0.2 else Priority.LOW
