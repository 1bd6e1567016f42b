"""Who has leases: processes that beat, fall silent, and are given up.

A process extends all its leases at once, by its own row's deadline. What it had when that passed goes back as suspect;
its inboxes and broadcasts outlive it for a while, in case it was only stopped.
"""

from __future__ import annotations

from collections.abc import Sequence

from neuralcore.messaging.errors import NotStored
from neuralcore_transports.sqlite.store.entries import Entries, Lease
from neuralcore_transports.sqlite.store.inboxes import Inboxes
from neuralcore_transports.sqlite.store.messages import Messages
from neuralcore_transports.sqlite.store.moment import Limits, Moment
from neuralcore_transports.sqlite.store.subscribers import Subscribers
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["Owners"]


class Owners:
    def __init__(
        self,
        book: Book,
        messages: Messages,
        entries: Entries,
        subscribers: Subscribers,
        inboxes: Inboxes,
        limits: Limits,
    ) -> None:
        self._book = book
        self._messages = messages
        self._entries = entries
        self._subscribers = subscribers
        self._inboxes = inboxes
        self._limits = limits

    def connect(self, name: str, boot: str, now: Moment) -> int:
        id = self._book.execute(
            "INSERT INTO nc_owner (name, boot, deadline) VALUES (?, ?, ?)", (name, boot, now.mono + self._limits.lease)
        ).lastrowid
        assert id is not None
        return id

    def beat(self, owner: int, now: Moment) -> bool:
        """Extend all its leases; False when it was given up."""
        return (
            self._book.execute(
                "UPDATE nc_owner SET deadline = ? WHERE id = ?", (now.mono + self._limits.lease, owner)
            ).rowcount
            == 1
        )

    def must_live(self, owner: int) -> None:
        """What somebody gets who was given up would be nobody's for ever. Raises NotStored."""
        if not self.lives(owner):
            raise NotStored(
                "sqlite", "this process stood still for so long that it was given up; it comes back at once"
            )

    def lives(self, owner: int) -> bool:
        return self._book.execute("SELECT 1 FROM nc_owner WHERE id = ?", (owner,)).fetchone() is not None

    def others(self, owner: int) -> list[tuple[int, str]]:
        """Numbers and boots."""
        return self._book.execute("SELECT id, boot FROM nc_owner WHERE id != ?", (owner,)).fetchall()

    def leave(self, owner: int, now: Moment) -> None:
        """A clean end: what it has leased goes back untouched."""
        for lease, key in self._leases(owner):
            if self._ends(lease, key, now):
                continue
            self._entries.release(lease, key, now)
        self.forget(owner, now)

    def give_up(self, owner: int, now: Moment) -> None:
        """It is dead: what it has leased goes to others as suspect, and nothing of it stays."""
        self.take_leases(owner, now)
        self.forget(owner, now)

    def forget(self, owner: int, now: Moment) -> None:
        self._book.doubt()
        self._inboxes.close_all(owner)
        self._subscribers.end_owner(owner, now)
        self._book.execute("DELETE FROM nc_lost WHERE owner = ?", (owner,))
        self._book.execute("DELETE FROM nc_owner WHERE id = ?", (owner,))

    def take_leases(self, owner: int, now: Moment) -> None:
        """It has fallen silent."""
        leases = self._leases(owner)
        for lease, key in leases:
            if not self._ends(lease, key, now):
                self._entries.suspect(lease, key, now)
        self._entries.lose([(owner, lease) for lease, _ in leases])

    def expire(self, now: Moment) -> bool:
        """Take the leases of those that fell silent and those that were held for too long; whether there were any."""
        silent = self._book.execute("SELECT id, deadline FROM nc_owner WHERE deadline <= ?", (now.mono,)).fetchall()
        found = False
        for owner, deadline in silent:
            found |= bool(self._leases(owner))
            self.take_leases(owner, now)
            if now.mono - (deadline - self._limits.lease) >= self._limits.session_ttl:
                self.forget(owner, now)
                found = True
        for owner, lease, key in self._held_too_long(now):
            found = True
            if not self._ends(lease, key, now):
                self._entries.suspect(lease, key, now)
            self._entries.lose([(owner, lease)])
        return found

    def overdue(self, now: Moment) -> bool:
        """Whether ``expire`` would do something."""
        for owner, deadline in self._book.execute("SELECT id, deadline FROM nc_owner").fetchall():
            ended = deadline - self._limits.lease + self._limits.session_ttl
            if ended <= now.mono or (deadline <= now.mono and self._leases(owner)):
                return True
        return bool(self._held_too_long(now))

    def take_lost(self, owner: int) -> list[int]:
        """The numbers of its leases that ended against its will."""
        return [
            number for (number,) in self._book.execute("DELETE FROM nc_lost WHERE owner = ? RETURNING lease", (owner,))
        ]

    def _leases(self, owner: int) -> Sequence[tuple[Lease, str | None]]:
        rows = self._book.execute(
            "SELECT seq, position, lease, key FROM nc_entry WHERE state = 2 AND owner = ? ORDER BY lease", (owner,)
        )
        return [(Lease(seq, position, number), key) for seq, position, number, key in rows.fetchall()]

    def _held_too_long(self, now: Moment) -> Sequence[tuple[int, Lease, str | None]]:
        found = []
        for (owner,) in self._book.execute("SELECT id FROM nc_owner").fetchall():
            rows = self._book.execute(
                "SELECT seq, position, lease, key, since FROM nc_entry WHERE state = 2 AND owner = ? ORDER BY lease",
                (owner,),
            )
            for seq, position, number, key, since in rows:
                if now.mono - since < self._limits.max_hold:
                    break
                found.append((owner, Lease(seq, position, number), key))
            rows.close()
        return found

    def _ends(self, lease: Lease, key: str | None, now: Moment) -> bool:
        """Of a broadcast that is over, nothing comes back."""
        position = self._book.registry.positions.get(lease.position)
        if position is not None and not position.subscriber.ended:
            return False
        self._entries.drop(lease.seq, lease.position, key)
        if position is not None:
            self._messages.count_entries(position.id, -1)
            self._subscribers.settled_by(position.channel.id, [lease.seq], now)
            self._subscribers.bury(position.subscriber.id)
        return True
