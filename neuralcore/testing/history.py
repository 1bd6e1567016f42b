"""What happened to every message of a simulation, and whether it adds up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from neuralcore._core import Message

__all__ = ["History"]


@dataclass
class History:
    """Of one group. ``published`` holds what a publish returned for; everything else is what handlers saw."""

    published: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    """Publishes that were cancelled or failed: they may have happened."""
    begun: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    """Handlers that returned."""
    dead: Counter[str] = field(default_factory=Counter)
    attempts: dict[str, list[int]] = field(default_factory=dict)

    def begin(self, message: Message) -> None:
        self.begun[message.id] += 1
        self.attempts.setdefault(message.id, []).append(message.attempt)

    def finish(self, message: Message) -> None:
        self.done[message.id] += 1

    def bury(self, letter: Message) -> None:
        self.dead[letter.headers["nc-dlq-id"]] += 1

    @property
    def lost(self) -> set[str]:
        """Acknowledged to the publisher, and neither handled nor dead-lettered."""
        return self.published - set(self.done) - set(self.dead)

    @property
    def phantoms(self) -> set[str]:
        """Handled, and never published."""
        return set(self.begun) - self.published - self.unknown

    @property
    def repeated(self) -> set[str]:
        """Handled to the end more than once."""
        return {id for id, count in self.done.items() if count > 1}

    @property
    def undead(self) -> set[str]:
        """Both handled and dead-lettered, or dead-lettered twice."""
        return (set(self.done) & set(self.dead)) | {id for id, count in self.dead.items() if count > 1}

    @property
    def backwards(self) -> set[str]:
        """Messages whose attempts did not count up."""
        return {id for id, seen in self.attempts.items() if seen != sorted(seen)}

    def __str__(self) -> str:
        counts = {
            "published": self.published,
            "unknown": self.unknown,
            "done": self.done,
            "dead": self.dead,
            "lost": self.lost,
            "phantoms": self.phantoms,
            "repeated": self.repeated,
            "undead": self.undead,
        }
        return ", ".join(f"{name} {len(found)}" for name, found in counts.items())
