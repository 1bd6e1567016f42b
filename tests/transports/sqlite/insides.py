"""What must be true of the file after every step, and where its messages stand beside the reference."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from neuralcore.testing.memory.records import Entry, State
from neuralcore_transports.sqlite.store.messages import DELAYED
from neuralcore_transports.sqlite.store.schema import EntryState, MessageState

if TYPE_CHECKING:
    from tests.transports.sqlite.twins import Twins

__all__ = ["check_alike", "check_invariants", "contents"]

_TABLES = (
    *("store", "channel", "subscriber", "pattern", "position", "cursor", "message", "entry", "held", "seen"),
    *("owner", "lost", "inbox", "reply", "quarantine"),
)

_RULES = {
    "an entry without its message": """
        SELECT * FROM nc_entry e LEFT JOIN nc_message m ON m.seq = e.seq WHERE m.seq IS NULL""",
    "an entry without its position": """
        SELECT * FROM nc_entry e LEFT JOIN nc_position p ON p.id = e.position WHERE p.id IS NULL""",
    "an entry that is not like its message": """
        SELECT * FROM nc_entry e JOIN nc_message m ON m.seq = e.seq JOIN nc_position p ON p.id = e.position
        WHERE m.channel != p.channel OR m.priority != e.priority OR json_extract(m.attributes, '$.key') IS NOT e.key""",
    "a message that is kept, and wanted": """
        SELECT * FROM nc_entry e JOIN nc_message m ON m.seq = e.seq WHERE m.state IN (1, 2)""",
    "a lease without its owner": """
        SELECT * FROM nc_entry WHERE (state = 2) != (owner IS NOT NULL) OR (state = 2) != (lease IS NOT NULL)
        OR (state = 2 AND owner NOT IN (SELECT id FROM nc_owner))""",
    "an entry of an ended position that is not in flight": """
        SELECT * FROM nc_entry e JOIN nc_position p ON p.id = e.position WHERE p.ended AND e.state != 2""",
    "an ended position with nothing in flight": """
        SELECT * FROM nc_position p WHERE ended AND NOT EXISTS (SELECT 1 FROM nc_entry e WHERE e.position = p.id)""",
    "a position whose subscriber differs": """
        SELECT * FROM nc_position p LEFT JOIN nc_subscriber y ON y.id = p.subscriber WHERE y.ended IS NOT p.ended""",
    "a position without its channel": """
        SELECT * FROM nc_position WHERE channel NOT IN (SELECT id FROM nc_channel)""",
    "a cursor, a key or a pattern of nobody": """
        SELECT 1 FROM nc_cursor WHERE position NOT IN (SELECT id FROM nc_position)
        UNION ALL SELECT 2 FROM nc_held WHERE position NOT IN (SELECT id FROM nc_position)
        UNION ALL SELECT 3 FROM nc_pattern WHERE subscriber NOT IN (SELECT id FROM nc_subscriber)
        UNION ALL SELECT 4 FROM nc_seen WHERE channel NOT IN (SELECT id FROM nc_channel)""",
    "a key held by nobody": """
        SELECT * FROM nc_held h LEFT JOIN nc_entry e ON e.seq = h.seq AND e.position = h.position
        WHERE e.key IS NOT h.key OR e.state NOT IN (1, 2, 3)""",
    "a lease that does not hold its key": """
        SELECT * FROM nc_entry e WHERE state = 2 AND key IS NOT NULL AND NOT EXISTS
        (SELECT 1 FROM nc_held h WHERE h.position = e.position AND h.key = e.key AND h.seq = e.seq)""",
    "one that waits for a key that comes to nobody": """
        SELECT * FROM nc_entry e WHERE state = 4
        AND NOT EXISTS (SELECT 1 FROM nc_held h WHERE h.position = e.position AND h.key = e.key)
        AND NOT EXISTS (SELECT 1 FROM nc_entry o WHERE o.position = e.position AND o.key = e.key AND o.state = 1)""",
    "a number that will be given out again": """
        SELECT * FROM nc_store WHERE next <= max(
            (SELECT ifnull(max(seq), 0) FROM nc_message),
            (SELECT ifnull(max(max(rank, ifnull(lease, 0))), 0) FROM nc_entry),
            (SELECT ifnull(max(lease), 0) FROM nc_lost))""",
    "a lost lease of nobody, or one that is not lost": """
        SELECT * FROM nc_lost l WHERE owner NOT IN (SELECT id FROM nc_owner)
        OR lease IN (SELECT lease FROM nc_entry WHERE state = 2)""",
    "an inbox that has miscounted": """
        SELECT address FROM nc_inbox i
        WHERE waiting != (SELECT count(*) FROM nc_reply r WHERE r.address = i.address)
        UNION ALL SELECT address FROM nc_reply WHERE address NOT IN (SELECT address FROM nc_inbox)""",
    "an inbox or a broadcast of nobody": """
        SELECT 1 FROM nc_inbox WHERE owner NOT IN (SELECT id FROM nc_owner)
        UNION ALL SELECT 2 FROM nc_subscriber
        WHERE name IS NULL AND NOT ended AND owner NOT IN (SELECT id FROM nc_owner)""",
    "something that is yet to be collected": "SELECT * FROM nc_channel WHERE collect_to > 0",
    "a damaged message": "SELECT * FROM nc_quarantine",
}
_ALL_RULES = " UNION ALL ".join(f"SELECT '{what}' WHERE EXISTS ({query})" for what, query in _RULES.items())


def check_invariants(connection: sqlite3.Connection) -> None:
    """Once ``tidy`` has nothing left to do."""
    broken = connection.execute(_ALL_RULES).fetchall()
    assert not broken, [(what, connection.execute(_RULES[what]).fetchall()) for (what,) in broken]
    _check_counts(connection)


def _check_counts(connection: sqlite3.Connection) -> None:
    for id, name, *counted in connection.execute(
        "SELECT id, name, open, waiting, kept, kept_bytes FROM nc_channel"
    ).fetchall():
        (really,) = connection.execute(
            "SELECT ifnull(sum(state != 2), 0), ifnull(sum(state = 1), 0), ifnull(sum(state IN (1, 2)), 0),"
            " ifnull(sum(length(body) * (state IN (1, 2))), 0) FROM nc_message WHERE channel = ?",
            (id,),
        ).fetchall()
        assert tuple(counted) == really, f"{name}: open, waiting, kept and its bytes are {really}, counted as {counted}"
    claims: Counter[int] = Counter()
    taken = _taken(connection)
    entries = {(seq, position) for seq, position in connection.execute("SELECT seq, position FROM nc_entry")}
    messages = connection.execute(f"SELECT seq, channel, priority, state, {DELAYED} FROM nc_message").fetchall()
    grouped = {
        channel
        for (channel,) in connection.execute(
            "SELECT channel FROM nc_position p JOIN nc_subscriber y ON y.id = p.subscriber WHERE y.name IS NOT NULL"
        )
    }
    for position, channel, start, ended, counted in connection.execute(
        "SELECT id, channel, start, ended, entries FROM nc_position"
    ).fetchall():
        count = 0
        for seq, where, priority, state, delayed in messages:
            untaken = not ended and seq >= taken.get((position, priority), start) and where == channel
            has = (seq, position) in entries
            assert not untaken or delayed or state == MessageState.OPEN, f"{position} has yet to take {seq}: {state}"
            untaken &= state == MessageState.OPEN
            assert not (untaken and has), f"message {seq} would come twice to {position}"
            wants = has or untaken
            assert not wants or state in (MessageState.OPEN, MessageState.PLACED), f"{position} wants {seq}: {state}"
            claims[seq] += wants
            count += wants
        assert count == counted, f"position {position} has {count} entries, and has counted {counted}"
    for seq, channel, _, state, _ in messages:
        if state in (MessageState.OPEN, MessageState.PLACED) and channel in grouped:
            assert claims[seq], f"nobody wants message {seq}"


def _taken(connection: sqlite3.Connection) -> dict[tuple[int, int], int]:
    return {(p, priority): following for p, priority, following in connection.execute("SELECT * FROM nc_cursor")}


def contents(connection: sqlite3.Connection) -> dict[str, list[Any]]:
    """Everything in the file."""
    return {table: connection.execute(f"SELECT * FROM nc_{table}").fetchall() for table in _TABLES}


# Beside the reference

_QUEUED, _DELAYED, _LEASED = "queued", "delayed", "leased"
_OURS = {State.READY: _QUEUED, State.PARKED: _QUEUED, State.DELAYED: _DELAYED, State.LEASED: _LEASED}
_THEIRS = {
    EntryState.READY: _QUEUED,
    EntryState.PARKED: _QUEUED,
    EntryState.DELAYED: _DELAYED,
    EntryState.DATED: _DELAYED,
    EntryState.LEASED: _LEASED,
}
_Standing = dict[tuple[str, Any], list[tuple[Any, ...]]]
"""By channel and subscriber: its messages in order of urgency, each with its place in the log, its state, its attempts,
whether it is suspect and whether it holds its key.
"""


def check_alike(twins: Twins, connection: sqlite3.Connection) -> None:
    """The same messages in the same order in the same state for everyone."""
    twins.same("logs", *(_logs(twins, connection)))
    twins.same("standing", _reference(twins), _store(twins, connection))


def _logs(twins: Twins, connection: sqlite3.Connection) -> tuple[Any, Any]:
    expected = {name: [r.envelope.id for r in channel.log.values()] for name, channel in twins.memory._channels.items()}
    found: dict[str, list[str]] = {name: [] for name in expected}
    for name, id in connection.execute(
        "SELECT name, json_extract(attributes, '$.id') FROM nc_message m JOIN nc_channel c ON c.id = m.channel"
        " ORDER BY seq"
    ):
        found.setdefault(name, []).append(id)
    return expected, found


def _reference(twins: Twins) -> _Standing:
    labels = {
        id(group): (slot.number, interest)
        for slot in twins.slots
        if None in slot.readers
        for interest, group in slot.readers[None][0].groups.items()
    }
    standing: _Standing = {}
    for channel in twins.memory._channels.values():
        order = {seq: at for at, seq in enumerate(channel.log)}
        for position in channel.positions:
            label = position.group.name or labels.get(id(position.group), "nobody")
            standing[channel.name, label] = [
                (order[entry.record.seq], _OURS[entry.state], entry.failed, entry.suspect, _holds(entry))
                for entry in sorted(position.entries.values(), key=lambda entry: entry.rank)
            ]
    return standing


def _holds(entry: Entry) -> bool:
    return entry.position._keys._holders.get(entry.key) is entry  # type: ignore[call-overload]


def _store(twins: Twins, connection: sqlite3.Connection) -> _Standing:
    labels: dict[int, Any] = {
        subscriber: (slot.number, interest)
        for slot in twins.slots
        if None in slot.readers
        for interest, subscriber in slot.readers[None][1].subscribers.items()
    }
    taken = _taken(connection)
    held = set(connection.execute("SELECT position, seq FROM nc_held"))
    entries: defaultdict[int, list[Any]] = defaultdict(list)
    for position, *rest in connection.execute(
        "SELECT position, seq, priority, rank, state, failed, suspect FROM nc_entry"
    ):
        entries[position].append(rest)
    messages: defaultdict[int, list[Any]] = defaultdict(list)
    for channel, *rest in connection.execute("SELECT channel, seq, priority, state FROM nc_message ORDER BY seq"):
        messages[channel].append(rest)
    standing: _Standing = {}
    for id, subscriber, group, channel, name, start in connection.execute(
        "SELECT p.id, y.id, y.name, c.id, c.name, p.start FROM nc_position p"
        " JOIN nc_subscriber y ON y.id = p.subscriber JOIN nc_channel c ON c.id = p.channel WHERE NOT p.ended"
    ):
        order = {seq: at for at, (seq, _, _) in enumerate(messages[channel])}
        found = [
            (priority, rank, order[seq], _THEIRS[state], failed, bool(suspect), (id, seq) in held)
            for seq, priority, rank, state, failed, suspect in entries[id]
        ]
        found += [
            (priority, seq, order[seq], _QUEUED, 0, False, False)
            for seq, priority, state in messages[channel]
            if state == MessageState.OPEN and seq >= taken.get((id, priority), start)
        ]
        standing[name, group or labels.get(subscriber, "nobody")] = [each[2:] for each in sorted(found)]
    return standing
