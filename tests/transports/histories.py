"""Random scripts for ``twins.py``: plain tuples, so that a failing one can be printed, cut down, pasted into a test."""

from __future__ import annotations

import random
from typing import Any

__all__ = ["CHANNELS", "GROUPS", "LATE", "SLOTS", "Op", "history"]

Op = tuple[Any, ...]

SLOTS = (0, 1, 2)
"""Places for processes."""
CHANNELS = ("a.x", "a.y", "b", "c.d.e")
PATTERNS = (*CHANNELS, "a.*", ">", "*", "c.>")
GROUPS = (None, "g", "h")
KEYS = ("k", "l")
PRIORITIES = (0, 25, 50, 75)
LIMITS = (1, 1, 2, 3, 100)
LATE = 100
"""From here on, a settlement is of something that was settled already."""
SECONDS = (0.0, 0.5, 1.0, 3.0, 4.0, 7.0, 30.0, 61.0)
WALL_JUMPS = (-7200.0, 7200.0, -1.0, 1.0, -20.0, 86400.0)

_WEIGHTS = {
    "commit": 30,
    "fetch": 30,
    "join": 8,
    "wait": 8,
    "declare": 3,
    "seek": 2,
    "leave": 1,
    "remove_group": 1,
    "remove_channel": 0.7,
    "silence": 1,
    "resume": 3,
    "disconnect": 1,
    "kill": 1,
    "inbox": 1,
    "take": 1,
    "close_inbox": 0.3,
    "jump": 2,
    "browse": 2,
}
_TASTES = (
    *("key", "delay", "not_before", "dedup", "replay", "again", "priority", "start", "capacity", "retention", "after"),
    *("nack", "late", "inbox"),
)
_OFTEN = ("key", "nack", "priority")
_CALM = {"commit": 60, "join": 4, "fetch": 4, "wait": 2, "declare": 1, "seek": 1, "kill": 0.5}
_CALM_TASTES = {"key": 0.05, "nack": 0.02, "delay": 0.02, "dedup": 0.1, "priority": 0.3, "capacity": 0.2, "inbox": 0.02}


class _Writer:
    """Each script has a taste of its own: what it does never, and what it does often."""

    def __init__(self, seed: int, *, calm: bool) -> None:
        """``calm``: hardly anything happens but publishing and acknowledging."""
        self.rng = random.Random(seed)
        self.published = 0
        self.next: list[Op] = []
        """What it has in mind already."""
        self.joined: dict[tuple[int, str | None], None] = {}
        """Slots and groups that are likely to have something to fetch."""
        taste = random.Random(seed + 1)
        self.weights = {verb: weight * taste.choice((0, 0.5, 1, 1, 3)) for verb, weight in _WEIGHTS.items()}
        for needed in ("commit", "fetch", "join"):
            self.weights[needed] = self.weights[needed] or _WEIGHTS[needed]
        self.channels = taste.sample(CHANNELS, taste.randint(1, len(CHANNELS)))
        self.patterns = [p for p in PATTERNS if p in self.channels or p not in CHANNELS]
        self.groups = taste.sample(GROUPS, taste.randint(1, len(GROUPS)))
        self.likes = {
            taste_for: taste.choice((0.0, 0.2, 0.7, 0.9) if taste_for in _OFTEN else (0.0, 0.0, 0.2, 0.7))
            for taste_for in _TASTES
        }
        if calm:
            self.weights = _CALM
            self.likes = {taste_for: _CALM_TASTES.get(taste_for, 0.0) for taste_for in _TASTES}

    def likely(self, what: str) -> bool:
        return self.rng.random() < self.likes[what]

    def op(self) -> Op:
        if self.next and self.rng.random() < 0.7:
            return self.next.pop(0)
        verb = self.rng.choices(list(self.weights), list(self.weights.values()))[0]
        op: Op = getattr(self, verb)()
        return op

    @property
    def slot(self) -> int:
        return self.rng.choice(SLOTS)

    # What is stored

    def declare(self) -> Op:
        pick = self.rng.choice
        capacity = pick((1, 2, 3)) if self.likely("capacity") else None
        overflow = pick(("block", "drop_new", "drop_old", "drop_old", "reject", None))
        retention = pick(
            ({"count": 1}, {"count": 3}, {"age": 4.0}, {"bytes": 6}, {"age": 30.0, "count": 5}, {"count": 100})
        )
        return (
            "declare",
            pick(self.channels),
            {
                "capacity": capacity,
                "overflow": overflow,
                "retention": retention if self.likely("retention") else None,
            },
        )

    def commit(self) -> Op:
        kind = self.rng.random()
        publishes = [self.publish() for _ in range(self.rng.choice((1, 1, 1, 2, 4)))] if kind < 0.6 else []
        settlements = (
            [self.settlement(len(publishes)) for _ in range(self.rng.choice((1, 1, 2, 3)))] if kind > 0.4 else []
        )
        for which, outcome, *rest in list(settlements):
            if outcome == "attempt" and self.rng.random() < 0.5:
                settlements.append((which, self.rng.choice(("release", "nack", "attempt")), *rest))
        return "commit", self.slot, publishes, settlements

    def publish(self) -> dict[str, Any]:
        pick = self.rng.choice
        if self.likely("inbox"):
            return {"inbox": self.slot, "n": self.published}
        made: dict[str, Any] = {"channel": pick(self.channels), "n": self.published, "size": self.rng.randrange(6)}
        if self.published and self.likely("again"):
            made["n"] = self.rng.randrange(self.published)
        else:
            self.published += 1
        if self.likely("replay"):
            made["replay"] = pick((1, 2))
        if self.likely("dedup"):
            made["dedup_key"] = pick(("d", "e", "m0", "m1"))
        if self.likely("key"):
            made["key"] = pick(KEYS)
        if self.likely("delay"):
            made["delay"] = pick(SECONDS)
        if self.likely("not_before"):
            made["not_before"] = pick((-1.0, 0.0, 1.0, 3.0, 7200.0))
        if self.likely("priority"):
            made["priority"] = pick(PRIORITIES)
        if self.rng.random() < 0.005:
            made["channel"] = "not a name"
        return made

    def settlement(self, publishes: int) -> tuple[Any, ...]:
        """Which of what the slot had, counted from the last; outcome, delay, pass_key, after."""
        pick = self.rng.choice
        which = self.rng.randrange(4) + LATE * (self.rng.random() < 0.2 and self.likely("late"))
        after = self.rng.randrange(publishes) if publishes and self.likely("after") else None
        outcome = pick(("nack", "release", "attempt", "nack")) if self.likely("nack") else "ack"
        return which, outcome, pick((0.0, 0.0, 1.0, 7.0)), pick((False, True)), after

    # Who consumes

    def join(self) -> Op:
        pick = self.rng.choice
        patterns = sorted({pick(self.patterns) for _ in range(pick((0, *(1,) * 6, 2, 2, 3)))})
        start = self.cursor() if self.likely("start") else None
        slot, group = self.slot, pick(self.groups)
        self.joined[slot, group] = None
        return "join", slot, group, patterns, start

    def member(self) -> tuple[int, str | None]:
        if self.joined and self.rng.random() < 0.95:
            return self.rng.choice(list(self.joined))
        return self.slot, self.rng.choice(self.groups)

    def cursor(self) -> Any:
        pick = self.rng.choice
        kind = self.rng.random()
        if kind < 0.25 or not self.published:
            return pick(("new", "beginning"))
        if kind < 0.6:
            return "id", self.rng.randrange(self.published)
        if kind < 0.75:
            return "place", self.rng.randrange(8)
        return "time", pick((-30.0, -3.0, -1.0, 0.0, 0.5, 1.0))

    def fetch(self) -> Op:
        limits = [self.rng.choice(LIMITS) for _ in range(self.rng.choice((1, 1, 1, 3)))]
        bound = self.rng.choice((None, None, None, 50, 26))
        return "fetch", *self.member(), limits, bound

    def seek(self) -> Op:
        return "seek", *self.member(), self.rng.randrange(3), self.cursor()

    def leave(self) -> Op:
        slot, group = self.member()
        self.joined.pop((slot, group), None)
        return "leave", slot, group

    def remove_group(self) -> Op:
        return "remove_group", self.rng.choice(GROUPS[1:]), self.rng.choice((None, *self.patterns))

    def remove_channel(self) -> Op:
        return "remove_channel", self.rng.choice(self.channels)

    # Who lives

    def silence(self) -> Op:
        slot = self.slot
        if self.rng.random() < 0.5:
            self.next += [("wait", 4.0), ("resume", slot)]
        return "silence", slot

    def resume(self) -> Op:
        return "resume", self.slot

    def disconnect(self) -> Op:
        return "disconnect", self.gone()

    def kill(self) -> Op:
        return "kill", self.gone()

    def gone(self) -> int:
        slot = self.slot
        for group in GROUPS:
            self.joined.pop((slot, group), None)
        return slot

    # Replies, time, looking in

    def inbox(self) -> Op:
        return "inbox", self.slot

    def take(self) -> Op:
        return "take", self.slot

    def close_inbox(self) -> Op:
        return "close_inbox", self.slot

    def wait(self) -> Op:
        return "wait", self.rng.choice(SECONDS[1:])

    def jump(self) -> Op:
        return "jump", self.rng.choice(WALL_JUMPS)

    def browse(self) -> Op:
        return "browse", self.rng.choice(self.channels), self.cursor(), self.rng.choice((1, 2, 100))


def history(seed: int, length: int = 40, *, calm: bool = False) -> list[Op]:
    writer = _Writer(seed, calm=calm)
    opening = [writer.declare(), writer.declare(), writer.join(), writer.join(), writer.commit()]
    writer.rng.shuffle(opening)
    return [*opening, *(writer.op() for _ in range(length - len(opening)))]
