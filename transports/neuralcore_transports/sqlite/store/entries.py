"""What becomes of the messages that a position has taken: leased, come back, settled; and the keys that they hold.

An entry's message is in flight while it is LEASED. A key is held by one entry of a position from the moment it is taken
until it is settled or released, also while it waits for its next attempt. Whatever brings a position something to take,
or takes a message from it, begins another epoch (``Book.doubt``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from neuralcore_transports.sqlite.store import bulk
from neuralcore_transports.sqlite.store.messages import Messages
from neuralcore_transports.sqlite.store.moment import Moment
from neuralcore_transports.sqlite.store.registry import Channel, Position
from neuralcore_transports.sqlite.store.rows import attribute
from neuralcore_transports.sqlite.store.schema import EntryState
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["Entries", "Lease", "Taken"]


class Lease(NamedTuple):
    """The token in a delivery."""

    seq: int
    position: int
    number: int


class Taken(NamedTuple):
    """What a fetch has come to."""

    seq: int
    priority: int
    key: str | None
    lease: int | None
    """None when its key does not admit it."""
    new: bool
    """It has no entry yet."""


class Entries:
    def __init__(self, book: Book, messages: Messages) -> None:
        self._book = book
        self._messages = messages
        self._execute = book.execute
        self._due: Moment | None = None
        self._due_epoch = -1

    # Coming in

    def place(self, channel: Channel, first: int, now: Moment, positions: Sequence[Position]) -> None:
        """Give what was published with a delay, from number ``first`` on, an entry in each of these positions."""
        self._book.doubt()
        for position in positions:
            self._execute(
                "INSERT INTO nc_entry (seq, position, state, priority, rank, key, due, not_before)"
                " SELECT seq, ?, CASE WHEN mono + delay > ? THEN 3 WHEN not_before > ? THEN 5 ELSE 1 END,"
                " priority, seq, key, mono + delay, not_before FROM"
                f" (SELECT seq, mono, priority, ifnull({attribute('delay')}, 0) AS delay,"
                f" {attribute('not_before')} AS not_before, {attribute('key')} AS key"
                " FROM nc_message WHERE channel = ? AND state = 3 AND seq >= ?)",
                (position.id, now.mono, now.wall, channel.id, max(first, position.start)),
            )

    def make_due(self, now: Moment, most: int) -> int:
        """Let those go whose time has come; how many."""
        execute = self._execute
        due = execute(
            "UPDATE nc_entry SET state = CASE WHEN not_before > ? THEN 5 ELSE 1 END WHERE (seq, position) IN"
            " (SELECT seq, position FROM nc_entry WHERE state = 3 AND due <= ? ORDER BY due LIMIT ?)",
            (now.wall, now.mono, most),
        ).rowcount
        dated = execute(
            "UPDATE nc_entry SET state = 1 WHERE (seq, position) IN"
            " (SELECT seq, position FROM nc_entry WHERE state = 5 AND not_before <= ? ORDER BY not_before LIMIT ?)",
            (now.wall, most),
        ).rowcount
        if due or dated:
            self._book.doubt()
        return int(due + dated)

    def next_due(self) -> Moment | None:
        """When ``make_due`` may find something: once either of the times is reached."""
        if self._due_epoch != self._book.epoch:
            mono, wall = self._execute(
                "SELECT (SELECT min(due) FROM nc_entry WHERE state = 3),"
                " (SELECT min(not_before) FROM nc_entry WHERE state = 5)"
            ).fetchone()
            self._due = None if mono is None and wall is None else Moment(mono or _NEVER, wall or _NEVER)
            self._due_epoch = self._book.epoch
        return self._due

    # Being taken

    def admits(self, position: int, key: str | None, seq: int) -> bool:
        """Its key is free, or its own; from here on it is its own."""
        if key is None:
            return True
        holder = self._execute("SELECT seq FROM nc_held WHERE position = ? AND key = ?", (position, key)).fetchone()
        if holder is None:
            self._execute("INSERT INTO nc_held VALUES (?, ?, ?)", (position, key, seq))
            return True
        return bool(holder[0] == seq)

    def take(self, owner: int, position: int, taken: Sequence[Taken], now: Moment) -> None:
        """Lease, or park what its key does not admit. ``new`` ones get their entry here."""
        new = [
            (each.seq, position, *_leased(each, owner, now), each.priority, each.seq, each.key)
            for each in taken
            if each.new
        ]
        if new:
            head = "INSERT INTO nc_entry (seq, position, state, owner, lease, since, priority, rank, key)"
            bulk.insert(self._execute, head, new)
        old = [(*_leased(each, owner, now), each.seq, position) for each in taken if not each.new]
        if old:
            self._book.executemany(
                "UPDATE nc_entry SET state = ?, owner = ?, lease = ?, since = ?, charged = 0"
                " WHERE seq = ? AND position = ?",
                old,
            )

    def move_cursor(self, position: int, priority: int, following: int) -> None:
        self._execute("INSERT OR REPLACE INTO nc_cursor VALUES (?, ?, ?)", (position, priority, following))

    # Being settled

    def ack(self, lease: Lease, key: str | None) -> bool:
        """Whether it was leased. Its message is then one that this position has settled."""
        gone = self._execute(
            "DELETE FROM nc_entry WHERE seq = ? AND position = ? AND state = 2 AND lease = ?", lease
        ).rowcount
        if gone and key is not None:
            self.free_key(lease.position, key, lease.seq)
        return gone == 1

    def ack_all(self, position: int, leases: Sequence[Lease]) -> bool:
        """Those of one position, without keys; nothing is done unless all of them were leased.

        A lease's number is given out once: among those of these messages it can be no other message's.
        """
        if len(leases) == 1:
            return self.ack(leases[0], None)
        acked = 0
        self._execute("SAVEPOINT nc_acks")
        for part in bulk.parts(leases):
            marks = bulk.marks(len(part))
            acked += self._execute(
                f"DELETE FROM nc_entry WHERE seq IN {marks} AND position = ? AND state = 2 AND lease IN {marks}",
                (*[lease.seq for lease in part], position, *[lease.number for lease in part]),
            ).rowcount
        if acked != len(leases):
            self._execute("ROLLBACK TO nc_acks")
        self._execute("RELEASE nc_acks")
        return acked == len(leases)

    def charge(self, lease: Lease) -> bool:
        """Count its attempt, once; the lease goes on."""
        return (
            self._execute(
                "UPDATE nc_entry SET failed = failed + 1 - charged, charged = 1"
                " WHERE seq = ? AND position = ? AND state = 2 AND lease = ?",
                lease,
            ).rowcount
            == 1
        )

    def nack(self, lease: Lease, key: str | None, delay: int, pass_key: bool, now: Moment) -> bool:
        """Behind its equals; with a key that is held, in its old place."""
        self._book.doubt()
        due = now.mono + delay
        passes = key is None or pass_key
        came_back = self._execute(
            "UPDATE nc_entry SET failed = failed + 1 - charged, charged = 0, suspect = 0, owner = NULL, lease = NULL,"
            " due = ?, not_before = NULL, state = ?, rank = coalesce(?, rank)"
            " WHERE seq = ? AND position = ? AND state = 2 AND lease = ?",
            (
                due,
                int(EntryState.DELAYED if delay > 0 else EntryState.READY),
                self._book.number() if passes else None,
                *lease,
            ),
        ).rowcount
        if came_back and key is not None and passes:
            self.free_key(lease.position, key, lease.seq)
        return came_back == 1

    def release(self, lease: Lease, key: str | None, now: Moment) -> bool:
        """Untouched: an attempt that was stored for a suspect has not happened."""
        self._book.doubt()
        came_back = self._execute(
            "UPDATE nc_entry SET failed = failed - charged, charged = 0, owner = NULL, lease = NULL,"
            " state = CASE WHEN not_before > ? THEN 5 ELSE 1 END"
            " WHERE seq = ? AND position = ? AND state = 2 AND lease = ?",
            (now.wall, *lease),
        ).rowcount
        if came_back and key is not None:
            self.free_key(lease.position, key, lease.seq)
        return came_back == 1

    def suspect(self, lease: Lease, key: str | None, now: Moment) -> None:
        """Its owner is gone: it may be what ended it."""
        self._book.doubt()
        self._execute(
            "UPDATE nc_entry SET suspect = 1, charged = 0, owner = NULL, lease = NULL,"
            " state = CASE WHEN not_before > ? THEN 5 ELSE 1 END WHERE seq = ? AND position = ?",
            (now.wall, lease.seq, lease.position),
        )
        if key is not None:
            self.free_key(lease.position, key, lease.seq)

    def drop(self, seq: int, position: int, key: str | None) -> None:
        self._execute("DELETE FROM nc_entry WHERE seq = ? AND position = ?", (seq, position))
        if key is not None:
            self.free_key(position, key, seq)

    # Keys

    def free_key(self, position: int, key: str, seq: int) -> None:
        """Give it back, and let the next one of those that wait for it go."""
        if self._execute(
            "DELETE FROM nc_held WHERE position = ? AND key = ? AND seq = ?", (position, key, seq)
        ).rowcount:
            self._wake(position, key)

    def _wake(self, position: int, key: str) -> None:
        if self._execute(
            "UPDATE nc_entry SET state = 1 WHERE position = ? AND seq = (SELECT seq FROM nc_entry WHERE position = ?"
            " AND key = ? AND state = 4 ORDER BY priority, rank LIMIT 1)",
            (position, position, key),
        ).rowcount:
            self._book.doubt()

    def _give_up_key(self, position: int, key: str, seq: int) -> None:
        """Of one that goes unhandled: it may have been its turn, though it did not hold the key yet."""
        held = self._execute("SELECT 1 FROM nc_held WHERE position = ? AND key = ?", (position, key)).fetchone()
        if held is None:
            self._wake(position, key)
        else:
            self.free_key(position, key, seq)

    # Leaving

    def in_flight(self, position: Position) -> list[tuple[int, Lease]]:
        """Owners and leases."""
        rows = self._execute(
            "SELECT owner, seq, position, lease FROM nc_entry INDEXED BY nc_entry_leased"
            " WHERE state = 2 AND position = ?",
            (position.id,),
        )
        return [(owner, Lease(seq, where, lease)) for owner, seq, where, lease in rows]

    def lose(self, leases: Sequence[tuple[int, Lease]]) -> None:
        """Their owners are to hear of it."""
        self._book.executemany(
            "INSERT OR IGNORE INTO nc_lost VALUES (?, ?)", [(owner, lease.number) for owner, lease in leases]
        )

    def clear(self, position: Position, *, in_flight: bool) -> None:
        """Drop a position's entries, those in flight too if told so."""
        for state in EntryState:  # one by one, because the index over each state is what finds them
            if in_flight or state is not EntryState.LEASED:
                self._execute(f"DELETE FROM nc_entry WHERE position = ? AND state = {state:d}", (position.id,))
        self._execute(
            "DELETE FROM nc_held WHERE position = ? AND NOT EXISTS"
            " (SELECT 1 FROM nc_entry e WHERE e.seq = nc_held.seq AND e.position = nc_held.position)",
            (position.id,),
        )

    def withdraw(self, channel: Channel, seq: int, priority: int, taking: int | None = None) -> None:
        """Take one message, which is nowhere in flight, from every position; ``taking``: the one that is about to
        have it, and has moved its cursor.
        """
        self._book.doubt()  # it may be fresh, and is not to be handed out
        (placed,) = self._execute("SELECT ifnull(max(state), 0) = 3 FROM nc_message WHERE seq = ?", (seq,)).fetchone()
        for position in channel.positions:
            row = self._execute(
                "DELETE FROM nc_entry WHERE seq = ? AND position = ? RETURNING key", (seq, position.id)
            ).fetchone()
            if row is not None:
                if row[0] is not None:
                    self._give_up_key(position.id, row[0], seq)
            elif position.id != taking and (placed or self.cursor(position, priority) > seq):
                continue  # it was settled there
            self._messages.count_entries(position.id, -1)

    def cursor(self, position: Position, priority: int) -> int:
        """Everything of that priority before this number was taken."""
        row = self._execute(
            "SELECT next FROM nc_cursor WHERE position = ? AND priority = ?", (position.id, priority)
        ).fetchone()
        return position.start if row is None else int(row[0])


_NEVER = 1 << 62


def _leased(taken: Taken, owner: int, now: Moment) -> tuple[int, int | None, int | None, int]:
    """State, owner, lease, since."""
    if taken.lease is None:
        return int(EntryState.PARKED), None, None, now.mono
    return int(EntryState.LEASED), owner, taken.lease, now.mono
