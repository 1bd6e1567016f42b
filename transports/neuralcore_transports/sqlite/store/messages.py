"""The life of messages beyond their entries: stored, kept, forgotten; and the counts that a channel keeps of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from neuralcore_transports.sqlite.store.moment import Moment
from neuralcore_transports.sqlite.store.registry import Channel
from neuralcore_transports.sqlite.store.schema import MessageState
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["Messages"]

_TRIM: Final = 256
"""Messages that one transaction trims beside its own work, so that a flood of old ones never blocks publishers."""

_UNCLAIMED: Final = "NOT EXISTS (SELECT 1 FROM nc_entry WHERE nc_entry.seq = nc_message.seq)"


class Messages:
    def __init__(self, book: Book) -> None:
        self._book = book
        self._open: defaultdict[int, int] = defaultdict(int)
        self._kept: defaultdict[int, int] = defaultdict(int)
        self._bytes: defaultdict[int, int] = defaultdict(int)
        self._entries: defaultdict[int, int] = defaultdict(int)
        """Changes of this transaction, by channel and by position."""

    # Counts

    def count(self, channel: int, *, open: int = 0, kept: int = 0, bytes: int = 0) -> None:
        self._open[channel] += open
        if kept or bytes:
            self._kept[channel] += kept
            self._bytes[channel] += bytes

    def count_entries(self, position: int, change: int) -> None:
        self._entries[position] += change

    def open(self, channel: int) -> int:
        row = self._book.execute("SELECT open FROM nc_channel WHERE id = ?", (channel,)).fetchone()
        return (row[0] if row else 0) + self._open.get(channel, 0)

    def kept(self, channel: int) -> tuple[int, int]:
        """How many, and their bytes."""
        row = self._book.execute("SELECT kept, kept_bytes FROM nc_channel WHERE id = ?", (channel,)).fetchone() or (0, 0)
        return row[0] + self._kept.get(channel, 0), row[1] + self._bytes.get(channel, 0)

    def write_counts(self) -> None:
        """At the end of a transaction."""
        channels = [(self._open.get(id, 0), self._kept.get(id, 0), self._bytes.get(id, 0), id) for id in self._open]
        channels += [(0, change, self._bytes.get(id, 0), id) for id, change in self._kept.items() if id not in self._open]
        self._book.executemany(
            "UPDATE nc_channel SET open = open + ?, kept = kept + ?, kept_bytes = kept_bytes + ? WHERE id = ?", channels
        )
        entries = [(change, id) for id, change in self._entries.items() if change]
        self._book.executemany("UPDATE nc_position SET entries = entries + ? WHERE id = ?", entries)
        self.forget_counts()

    def forget_counts(self) -> None:
        """The transaction was undone."""
        for counts in (self._open, self._kept, self._bytes, self._entries):
            counts.clear()

    # What becomes of those that a position has settled

    def unclaim(self, channel: Channel, seqs: Sequence[int], now: Moment) -> None:
        """A position has settled them; what no other one has is kept by retention, or forgotten."""
        if self._keeps(channel):
            self._keep(channel, seqs)
            self.trim(channel, now, len(seqs) + _TRIM)
        else:
            gone = self._book.executemany(
                f"DELETE FROM nc_message WHERE seq = ? AND {_UNCLAIMED}", [(seq,) for seq in seqs]  # noqa: S608
            ).rowcount
            self.count(channel.id, open=-gone)

    def _keeps(self, channel: Channel) -> bool:
        return channel.config.retention is not None or not channel.has_group

    def _keep(self, channel: Channel, seqs: Sequence[int]) -> None:
        for seq in seqs:
            row = self._book.execute(
                f"UPDATE nc_message SET state = ? WHERE seq = ? AND state = ? AND {_UNCLAIMED} RETURNING length(body)",  # noqa: S608
                (MessageState.KEPT, seq, MessageState.OPEN),
            ).fetchone()
            if row is not None:
                self.count(channel.id, open=-1, kept=1, bytes=row[0])

    def delete(self, channel: Channel, seq: int) -> None:
        """Take one from everyone who has not got it yet; nobody has it in flight."""
        row = self._book.execute(
            "DELETE FROM nc_message WHERE seq = ? RETURNING state, length(body)", (seq,)
        ).fetchone()
        if row is None:
            return
        state, size = row
        kept = state != MessageState.OPEN
        self.count(channel.id, open=-(state != MessageState.KEPT), kept=-kept, bytes=-size * kept)

    # Retention

    def trim(self, channel: Channel, now: Moment, most: int) -> int:
        """Forget up to ``most`` of those that retention does not keep, oldest first; how many."""
        retention = channel.config.retention
        if retention is None and not channel.has_group:
            return 0
        count, size = self.kept(channel.id)
        doomed: list[tuple[int, int, int]] = []
        if count:
            rows = self._book.execute(
                "SELECT seq, state, length(body), stored_mono FROM nc_message"
                " WHERE channel = ? AND state > 0 ORDER BY seq LIMIT ?",
                (channel.id, most),
            )
            for seq, state, length, stored in rows:
                if retention is not None and not (
                    (retention.age is not None and now.mono - stored >= retention.age * 1e9)
                    or (retention.count is not None and count > retention.count)
                    or (retention.bytes is not None and size > retention.bytes)
                ):
                    break
                doomed.append((seq, state, length))
                count -= 1
                size -= length
            rows.close()
        self._forget(channel, doomed)
        return len(doomed)

    def _forget(self, channel: Channel, doomed: Sequence[tuple[int, int, int]]) -> None:
        if doomed:
            self._book.executemany("DELETE FROM nc_message WHERE seq = ?", [(seq,) for seq, _, _ in doomed])
            waiting = sum(state == MessageState.WAITING for _, state, _ in doomed)
            self.count(channel.id, open=-waiting, kept=-len(doomed), bytes=-sum(size for _, _, size in doomed))

    # Claims

    def claim(self, channel: Channel, where: str, parameters: Sequence[Any]) -> None:
        """A position begins with these: none of them waits or is kept any longer."""
        self._move(channel, MessageState.OPEN, f"state > 0 AND {where}", parameters)

    def stop_waiting(self, channel: Channel) -> None:
        """The first group has come, and what it does not want is nobody's."""
        self._move(channel, MessageState.KEPT, "state = 1", ())

    def _move(self, channel: Channel, target: MessageState, where: str, parameters: Sequence[Any]) -> None:
        found = f"FROM nc_message WHERE channel = ? AND {where}"
        for state, count, size in self._book.execute(
            f"SELECT state, count(*), sum(length(body)) {found} GROUP BY state",  # noqa: S608
            (channel.id, *parameters),
        ).fetchall():
            was_open, is_open = state != MessageState.KEPT, target != MessageState.KEPT
            left = target == MessageState.OPEN
            self.count(channel.id, open=count * (is_open - was_open), kept=-count * left, bytes=-size * left)
        self._book.execute(
            f"UPDATE nc_message SET state = {target:d} WHERE channel = ? AND {where}",  # noqa: S608
            (channel.id, *parameters),
        )
