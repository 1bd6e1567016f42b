"""The life of messages: kept, forgotten; and the counts that channels and positions keep of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from neuralcore_transports.sqlite.store import bulk
from neuralcore_transports.sqlite.store.moment import Moment
from neuralcore_transports.sqlite.store.registry import Channel
from neuralcore_transports.sqlite.store.rows import attribute
from neuralcore_transports.sqlite.store.schema import MessageState
from neuralcore_transports.sqlite.store.transaction import Book

__all__ = ["BESIDE", "DELAYED", "PRIORITIES", "Messages"]

BESIDE: Final = 256
"""How many old messages one transaction trims beside its own work, so that a flood of them never blocks publishers."""

PRIORITIES: Final = (
    "WITH RECURSIVE p(priority) AS (SELECT min(priority) FROM nc_message WHERE channel = ? UNION ALL"
    " SELECT (SELECT min(priority) FROM nc_message WHERE channel = ? AND priority > p.priority) FROM p"
    " WHERE p.priority IS NOT NULL)"
)
"""Those of a channel's messages, each found by one step in the index; one more, NULL, ends them. The channel, twice."""
DELAYED: Final = f"({attribute('delay')} IS NOT NULL OR {attribute('not_before')} IS NOT NULL)"
"""Whether a message was published with a delay."""
_IN_FLIGHT: Final = "EXISTS (SELECT 1 FROM nc_entry e WHERE e.seq = nc_message.seq)"
_NOT_TAKEN: Final = (
    "(state != 3 AND EXISTS (SELECT 1 FROM nc_position p LEFT JOIN nc_cursor c"
    " ON c.position = p.id AND c.priority = nc_message.priority"
    " WHERE p.channel = nc_message.channel AND p.ended = 0 AND ifnull(c.next, p.start) <= nc_message.seq))"
)
"""What was placed has an entry for as long as it is wanted, whatever the cursors say."""
_DELETE_TAKEN: Final = f"DELETE FROM nc_message WHERE seq IN {{}} AND NOT {_IN_FLIGHT}"
_DELETE: Final = f"{_DELETE_TAKEN} AND NOT {_NOT_TAKEN}"
_KEEP: Final = (
    f"UPDATE nc_message SET state = 2 WHERE seq = ? AND state IN (0, 3) AND NOT {_IN_FLIGHT} AND NOT {_NOT_TAKEN}"
    " RETURNING length(body)"
)


class Messages:
    def __init__(self, book: Book) -> None:
        self._book = book
        self._channels: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        """Changes of this transaction, by channel: open, waiting, kept, bytes."""
        self._positions: defaultdict[int, int] = defaultdict(int)
        """The same by position: entries."""

    # Counts

    def count(self, channel: int, *, opened: int = 0, waiting: int = 0, kept: int = 0, size: int = 0) -> None:
        changes = self._channels[channel]
        changes[0] += opened
        if waiting or kept or size:
            changes[1] += waiting
            changes[2] += kept
            changes[3] += size

    def count_entries(self, position: int, change: int) -> None:
        self._positions[position] += change

    def open(self, channel: int) -> int:
        row = self._book.execute("SELECT open FROM nc_channel WHERE id = ?", (channel,)).fetchone()
        return (row[0] if row else 0) + self._channels[channel][0]

    def kept(self, channel: int) -> tuple[int, int]:
        """How many, and their bytes."""
        row = self._book.execute("SELECT kept, kept_bytes FROM nc_channel WHERE id = ?", (channel,)).fetchone()
        count, size = row or (0, 0)
        _, _, kept, kept_bytes = self._channels[channel]
        return count + kept, size + kept_bytes

    def write_counts(self) -> None:
        """At the end of a transaction."""
        channels = [(*changes, id) for id, changes in self._channels.items() if any(changes)]
        if channels:
            self._book.executemany(
                "UPDATE nc_channel SET open = open + ?, waiting = waiting + ?, kept = kept + ?,"
                " kept_bytes = kept_bytes + ? WHERE id = ?",
                channels,
            )
        positions = [(change, id) for id, change in self._positions.items() if change]
        if positions:
            self._book.executemany("UPDATE nc_position SET entries = entries + ? WHERE id = ?", positions)
        self.forget_counts()

    def forget_counts(self) -> None:
        """The transaction was undone."""
        self._channels.clear()
        self._positions.clear()

    # What becomes of those that a position has settled

    def unclaim(
        self, channel: Channel, seqs: Sequence[int], now: Moment, *, alone: bool = False, grouped: bool = False
    ) -> None:
        """A position wants them no longer; what no other one wants is kept by retention, or forgotten.

        ``alone``: it is the only one, and has taken them. ``grouped``: it was a group's.
        """
        if channel.config.retention is not None or not (channel.has_group or grouped):
            retention = channel.config.retention
            for seq in seqs:
                row = self._book.execute(_KEEP, (seq,)).fetchone()
                if row is not None:
                    self.count(channel.id, opened=-1, kept=1, size=row[0])
                    if retention is not None and retention.bytes is not None:  # what goes hangs on the order then
                        self.trim(channel, now, BESIDE)
            self.trim(channel, now, len(seqs) + BESIDE)
        else:
            delete = _DELETE_TAKEN if alone else _DELETE
            gone = 0
            for part in bulk.parts(seqs):
                gone += self._book.execute(delete.format(bulk.marks(len(part))), part).rowcount
            self.count(channel.id, opened=-gone)

    def delete(self, channel: Channel, seq: int) -> None:
        """One that nobody has in flight."""
        row = self._book.execute(
            "DELETE FROM nc_message WHERE seq = ? RETURNING state, length(body)", (seq,)
        ).fetchone()
        if row is not None:
            self._count_gone(channel, [(seq, *row)])

    def _count_gone(self, channel: Channel, gone: Sequence[tuple[int, int, int]]) -> None:
        """Numbers, states and sizes."""
        for _, state, size in gone:
            opened, waiting, kept = _counts(state)
            self.count(channel.id, opened=-opened, waiting=-waiting, kept=-kept, size=-size * kept)

    # Retention

    def trim(self, channel: Channel, now: Moment, most: int) -> int:
        """Forget up to ``most`` of those that retention does not keep, oldest first; how many."""
        retention = channel.config.retention
        if retention is None and not channel.has_group:
            return 0
        count, size = self.kept(channel.id)
        if count <= 0:
            return 0
        doomed: list[tuple[int, int, int]] = []
        rows = self._book.execute(
            "SELECT seq, state, length(body), mono FROM nc_message"
            " WHERE channel = ? AND state > 0 AND state < 3 ORDER BY seq LIMIT ?",
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
        self._book.executemany("DELETE FROM nc_message WHERE seq = ?", [(seq,) for seq, _, _ in doomed])
        self._count_gone(channel, doomed)
        return len(doomed)

    def retain_waiting(self, channel: Channel) -> None:
        """No group has come yet, and from here on retention may take what waits for one."""
        if not channel.has_group:
            unclaimed = f"state IN (0, 3) AND NOT {_IN_FLIGHT} AND NOT {_NOT_TAKEN}"
            self._move(channel, unclaimed, MessageState.WAITING)

    def end_waiting(self, channel: Channel) -> None:
        """The first group has come: what it does not want, retention alone keeps."""
        self._move(channel, "state = 1", MessageState.KEPT)

    # Claims

    def claim(self, channel: Channel, start: int) -> None:
        """A position begins at ``start``: from there on none is kept for retention's sake any longer."""
        self._move(channel, f"state > 0 AND state < 3 AND seq >= {start:d}", MessageState.OPEN)

    def _move(self, channel: Channel, where: str, target: MessageState) -> None:
        """Among those, what has a delay is OPEN as PLACED."""
        now = _counts(target)
        for state, count, size in self._book.execute(
            f"SELECT state, count(*), sum(length(body)) FROM nc_message WHERE channel = ? AND {where} GROUP BY state",
            (channel.id,),
        ).fetchall():
            opened, waiting, kept = (new - old for new, old in zip(now, _counts(state), strict=True))
            self.count(channel.id, opened=opened * count, waiting=waiting * count, kept=kept * count, size=kept * size)
        state = str(int(target)) if target is not MessageState.OPEN else f"CASE WHEN {DELAYED} THEN 3 ELSE 0 END"
        self._book.execute(
            f"UPDATE nc_message SET state = {state} WHERE channel = ? AND {where}",
            (channel.id,),
        )

    # What nobody wants any more, without having settled it

    def collect(self, channel: Channel, first: int, last: int, now: Moment, *, grouped: bool) -> None:
        """Look through these, now and later. ``grouped``: a group wanted them."""
        self._book.execute(
            "UPDATE nc_channel SET collect_from = CASE WHEN collect_to > 0 THEN min(collect_from, ?) ELSE ? END,"
            " collect_to = max(collect_to, ?), collect_all = max(collect_all, ?) WHERE id = ?",
            (first, first, last, grouped, channel.id),
        )
        self.collect_some(channel, now, BESIDE)

    def collect_some(self, channel: Channel, now: Moment, most: int) -> int:
        """Of the messages that are to be looked through, up to so many; how many were."""
        row = self._book.execute(
            "SELECT collect_from, collect_to, collect_all FROM nc_channel WHERE id = ?", (channel.id,)
        ).fetchone()
        if row is None or not row[1] or most <= 0:
            return 0
        first, last, grouped = row
        rows = self._book.execute(
            "SELECT seq, channel, state FROM nc_message WHERE seq >= ? AND seq < ? ORDER BY seq LIMIT ?",
            (first, last, most),
        ).fetchall()
        wanted = [seq for seq, where, state in rows if where == channel.id and state in (0, 3)]
        self.unclaim(channel, wanted, now, grouped=bool(grouped))
        left = (rows[-1][0] + 1, last, grouped) if len(rows) == most else (0, 0, 0)
        self._book.execute(
            "UPDATE nc_channel SET collect_from = ?, collect_to = ?, collect_all = ? WHERE id = ?", (*left, channel.id)
        )
        return len(rows)


def _counts(state: int) -> tuple[int, int, int]:
    """Whether it is open, whether it waits for a first group, whether retention may take it."""
    waiting = state == MessageState.WAITING
    return state != MessageState.KEPT, waiting, waiting or state == MessageState.KEPT
