"""What must hold between the tables: a query that finds what breaks it, and statements after which it holds.

They are put right in this order: each one may count on those before it. Numbers are beyond use from 2^60 on.
"""

from __future__ import annotations

# ruff: noqa: S608 - all of it is constants
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from neuralcore_transports.sqlite.store.messages import DELAYED
from neuralcore_transports.sqlite.store.rows import attribute

__all__ = ["NEW_POSITIONS", "RULES", "UNCOUNT", "Rule"]


@dataclass(frozen=True, slots=True)
class Rule:
    table: str
    find: str
    """A query for which row, and what is wrong with it."""
    repair: str
    fix: Sequence[str]


_KEY: Final = attribute("key", "m.")
_OPEN: Final = f"CASE WHEN {DELAYED} THEN 3 ELSE 0 END"
_PASSED: Final = (
    "m.seq < ifnull((SELECT c.next FROM nc_cursor c WHERE c.position = p.id AND c.priority = m.priority), p.start)"
)
_TAKEN: Final = f"(m.state = 3 OR (m.state = 2 AND {DELAYED}) OR {_PASSED})"
_HAS_ENTRY: Final = "EXISTS (SELECT 1 FROM nc_entry e WHERE e.seq = m.seq AND e.position = p.id)"
_UNSETTLED: Final = f"({_HAS_ENTRY} OR (m.seq >= p.start AND NOT {_TAKEN}))"
_LIVE: Final = "p.channel = m.channel AND p.ended = 0"
_GROUP: Final = f"{_LIVE} AND EXISTS (SELECT 1 FROM nc_subscriber g WHERE g.id = p.subscriber AND g.name IS NOT NULL)"
_NEXT: Final = (
    "(SELECT max(n) FROM (SELECT 1 AS n UNION ALL SELECT max(seq) + 1 FROM nc_message WHERE seq < 1 << 60"
    " UNION ALL SELECT max(seq) + 1 FROM nc_seen WHERE seq < 1 << 60"
    " UNION ALL SELECT max(next) FROM nc_cursor WHERE next < 1 << 60"
    " UNION ALL SELECT max(start) FROM nc_position WHERE start < 1 << 60))"
)
_NOBODY: Final = (
    "FROM nc_message m JOIN nc_channel n ON n.id = m.channel WHERE m.state IN (0, 3)"
    f" AND EXISTS (SELECT 1 FROM nc_position p WHERE {_GROUP})"
    " AND NOT EXISTS (SELECT 1 FROM nc_entry e WHERE e.seq = m.seq)"
    f" AND NOT EXISTS (SELECT 1 FROM nc_position p WHERE {_LIVE} AND {_UNSETTLED})"
    " AND NOT (m.seq >= n.collect_from AND m.seq < n.collect_to)"
)
_FOUND: Final = f"(SELECT count(*) FROM nc_message m WHERE m.channel = p.channel AND {_UNSETTLED})"
_DEAF: Final = (
    "FROM nc_pattern t JOIN nc_channel n ON n.name = t.pattern"
    " JOIN nc_subscriber g ON g.id = t.subscriber AND g.ended = 0"
    " WHERE NOT EXISTS (SELECT 1 FROM nc_position p WHERE p.subscriber = t.subscriber AND p.channel = n.id)"
)
_BACK: Final = (  # READY, in the order of their numbers
    "INSERT OR IGNORE INTO nc_entry (seq, position, state, priority, rank, key)"
    f" SELECT m.seq, p.id, 1, m.priority, m.seq, {_KEY}"
)
_COUNT_AGAIN: Final = f"UPDATE nc_position AS p SET entries = {_FOUND} WHERE p.ended = 0 AND p.entries != {_FOUND}"
NEW_POSITIONS: Final = (
    "CREATE TEMP TABLE old AS SELECT ifnull(max(id), 0) AS id FROM nc_position",
    # What was published with a delay is delivered by its entries.
    (
        f"{_BACK} FROM nc_position p JOIN nc_message m ON m.channel = p.channel AND m.state = 3 AND m.seq >= p.start"
        " WHERE p.id > (SELECT id FROM temp.old)"
    ),
    "DROP TABLE temp.old",
)
"""Positions are made after the first, and before the other two."""
UNCOUNT: Final = (
    (
        "UPDATE nc_position AS p SET entries = entries - 1 WHERE p.ended = 0 AND EXISTS (SELECT 1 FROM nc_message m"
        f" WHERE m.seq = ? AND m.channel = p.channel AND {_UNSETTLED})"
    ),
    (
        "UPDATE nc_channel AS n SET open = open - (m.state != 2), waiting = waiting - (m.state = 1),"
        " kept = kept - (m.state IN (1, 2)),"
        " kept_bytes = kept_bytes - (m.state IN (1, 2)) * length(m.body) FROM nc_message m"
        " WHERE m.seq = ? AND m.channel = n.id"
    ),
)
"""Before one message goes, by its number."""
_READY: Final = "state = 1, owner = NULL, lease = NULL, charged = 0"
_STUCK: Final = (  # whoever holds the key lets it go on, and so does whoever is about to take it
    "e.state = 4 AND NOT EXISTS (SELECT 1 FROM nc_held h WHERE h.position = e.position AND h.key = e.key)"
    " AND NOT EXISTS (SELECT 1 FROM nc_entry r WHERE r.position = e.position AND r.key = e.key AND r.state = 1)"
)
_COUNTS: Final = (
    "(SELECT count(*) FROM nc_message m WHERE m.channel = n.id AND m.state != 2)",
    "(SELECT count(*) FROM nc_message m WHERE m.channel = n.id AND m.state = 1)",
    "(SELECT count(*) FROM nc_message m WHERE m.channel = n.id AND m.state IN (1, 2))",
    "(SELECT ifnull(sum(length(m.body)), 0) FROM nc_message m WHERE m.channel = n.id AND m.state IN (1, 2))",
)
_TOLD_COUNTS: Final = " || ', ' || ".join(_COUNTS)


def _gone(table: str, key: str, what: str, where: str, repair: str = "it is removed") -> Rule:
    """Rows that mean nothing without another one."""
    return Rule(
        table, f"SELECT {key}, {what!r} FROM {table} WHERE {where}", repair, [f"DELETE FROM {table} WHERE {where}"]
    )


def _without(table: str, column: str, other: str, key: str, what: str, repair: str = "it is removed") -> Rule:
    return _gone(table, key, what, f"{column} NOT IN (SELECT id FROM {other})", repair)


_ENTRY: Final = "'message ' || seq || ' in position ' || position"
_E_ENTRY: Final = "'message ' || e.seq || ' in position ' || e.position"

RULES: Final[Sequence[Rule]] = (
    # Messages, channels, groups
    Rule(
        "nc_message",
        "SELECT seq, 'its state ' || state || ' is unknown' FROM nc_message WHERE state NOT BETWEEN 0 AND 3",
        "it is open again",
        [f"UPDATE nc_message SET state = {_OPEN} WHERE state NOT BETWEEN 0 AND 3"],
    ),
    Rule(
        "nc_message",
        f"SELECT m.seq, CASE m.state WHEN 0 THEN 'it was published with a delay and is not marked so' ELSE"
        f" 'it is marked as delayed and was published without one' END FROM nc_message m"
        f" WHERE m.state IN (0, 3) AND m.state != 3 * {DELAYED}",
        "its mark is put right",
        [f"UPDATE nc_message SET state = {_OPEN} WHERE state IN (0, 3)"],
    ),
    Rule(
        "nc_subscriber",
        "SELECT DISTINCT p.subscriber, 'its positions are there and it is not' FROM nc_position p"
        " WHERE p.subscriber NOT IN (SELECT id FROM nc_subscriber)",
        "it becomes the group recovered-NUMBER, whose messages wait until you consume or remove it",
        [
            (
                "INSERT OR IGNORE INTO nc_subscriber (id, name)"
                " SELECT DISTINCT subscriber, 'recovered-' || subscriber FROM nc_position"
                " WHERE subscriber NOT IN (SELECT id FROM nc_subscriber)"
            )
        ],
    ),
    Rule(
        "nc_subscriber",
        "SELECT id, 'it is a broadcast of nobody' FROM nc_subscriber"
        " WHERE name IS NULL AND (owner IS NULL OR owner NOT IN (SELECT id FROM nc_owner))",
        "it is removed",
        [
            (
                "DELETE FROM nc_position WHERE subscriber IN (SELECT id FROM nc_subscriber WHERE name IS NULL"
                " AND (owner IS NULL OR owner NOT IN (SELECT id FROM nc_owner)))"
            ),
            (
                "DELETE FROM nc_subscriber"
                " WHERE name IS NULL AND (owner IS NULL OR owner NOT IN (SELECT id FROM nc_owner))"
            ),
        ],
    ),
    _without("nc_pattern", "subscriber", "nc_subscriber", "pattern", "its group is missing"),
    Rule(
        "nc_channel",
        "SELECT DISTINCT channel, 'its messages are there and it is not' FROM nc_message"
        " WHERE channel NOT IN (SELECT id FROM nc_channel)",
        "it gets the only name that its groups ask for and is free, or is called recovered.NUMBER",
        [
            # What each of its positions' groups subscribes to by name, and is no channel.
            (
                "INSERT OR IGNORE INTO nc_channel (id, name, config)"
                " SELECT lost, coalesce(name, 'recovered.' || lost),"
                " json_object('name', coalesce(name, 'recovered.' || lost)) FROM (SELECT lost, CASE WHEN"
                " count(DISTINCT pattern) = 1 THEN max(pattern) END AS name"
                " FROM (SELECT DISTINCT channel AS lost FROM nc_message WHERE channel NOT IN (SELECT id FROM"
                " nc_channel))"
                " LEFT JOIN nc_position p ON p.channel = lost LEFT JOIN nc_pattern t ON t.subscriber = p.subscriber"
                " AND t.pattern NOT IN (SELECT name FROM nc_channel) AND instr(t.pattern, '*') = 0"
                " AND instr(t.pattern, '>') = 0 GROUP BY lost)"
            ),
            (
                "INSERT INTO nc_channel (id, name, config) SELECT DISTINCT channel, 'recovered.' || channel,"
                " json_object('name', 'recovered.' || channel) FROM nc_message"
                " WHERE channel NOT IN (SELECT id FROM nc_channel)"
            ),
        ],
    ),
    # The numbers that are given out
    Rule(
        "nc_store",
        f"SELECT 'next', 'the next number, ' || next || ', was given out already' FROM nc_store WHERE next < {_NEXT}",
        "it is raised above every one that is in use",
        [f"UPDATE nc_store SET next = {_NEXT} WHERE next < {_NEXT}"],
    ),
    Rule(
        "nc_cursor",
        "SELECT 'of position ' || position || ', priority ' || priority, 'it is beyond every number' FROM nc_cursor"
        " WHERE next >= 1 << 60",
        "it is taken back, and what may have been lost is delivered again",
        ["UPDATE nc_cursor SET next = (SELECT next FROM nc_store) WHERE next >= 1 << 60"],
    ),
    Rule(
        "nc_position",
        "SELECT id, 'its start is beyond every number' FROM nc_position WHERE start >= 1 << 60",
        "it starts at the beginning",
        ["UPDATE nc_position SET start = 0 WHERE start >= 1 << 60"],
    ),
    # Positions
    _without("nc_position", "channel", "nc_channel", "id", "its channel is missing"),
    Rule(
        "nc_position",
        f"SELECT 'of group ' || ifnull(g.name, g.id), 'there is none on the channel ' || n.name || ', which"
        f" it subscribes to'"
        f" {_DEAF}",
        "it gets one, at the oldest message that is open",
        [
            NEW_POSITIONS[0],
            (
                "INSERT OR IGNORE INTO nc_position (subscriber, channel, start) SELECT g.id, n.id, ifnull((SELECT"
                " min(seq) FROM"
                f" nc_message WHERE channel = n.id AND state IN (0, 3)), (SELECT next FROM nc_store)) {_DEAF}"
            ),
            *NEW_POSITIONS[1:],
        ],
    ),
    _without(
        "nc_cursor",
        "position",
        "nc_position",
        "'of position ' || position || ', priority ' || priority",
        "its position is missing",
    ),
    # What positions have taken
    _without("nc_entry", "position", "nc_position", _ENTRY, "its position is missing"),
    _gone(
        "nc_entry",
        _ENTRY,
        "its message is missing",
        # Of a broadcast that has ended, retention may take what is still being handled.
        "seq NOT IN (SELECT seq FROM nc_message) AND position NOT IN (SELECT id FROM nc_position WHERE ended = 1)",
        "it is removed: the message is lost",
    ),
    Rule(
        "nc_entry",
        f"SELECT {_E_ENTRY}, 'its message is in another channel' FROM nc_entry e JOIN nc_message m ON m.seq = e.seq"
        " JOIN nc_position p ON p.id = e.position WHERE p.channel != m.channel",
        "it is removed",
        [
            (
                "DELETE FROM nc_entry WHERE (SELECT channel FROM nc_message m WHERE m.seq = nc_entry.seq)"
                " != (SELECT channel FROM nc_position p WHERE p.id = nc_entry.position)"
            )
        ],
    ),
    Rule(
        "nc_entry",
        f"SELECT {_E_ENTRY}, 'it is taken, and will be taken once more' FROM nc_entry e JOIN nc_message m"
        f" ON m.seq = e.seq JOIN nc_position p ON p.id = e.position WHERE p.ended = 0 AND NOT {_TAKEN}",
        "it is removed, and the message delivered as if new",
        [
            (
                "DELETE FROM nc_entry WHERE EXISTS (SELECT 1 FROM nc_message m, nc_position p WHERE m.seq ="
                " nc_entry.seq"
                f" AND p.id = nc_entry.position AND p.ended = 0 AND NOT {_TAKEN})"
            )
        ],
    ),
    Rule(
        "nc_entry",
        f"SELECT {_E_ENTRY}, 'its priority or key is not its message''s' FROM nc_entry e JOIN nc_message m"
        f" ON m.seq = e.seq WHERE json_valid(m.attributes) AND (e.priority != m.priority OR e.key IS NOT {_KEY})",
        "it gets its message's",
        [
            (
                f"UPDATE nc_entry SET priority = m.priority, key = {_KEY} FROM nc_message m WHERE m.seq = nc_entry.seq"
                f" AND json_valid(m.attributes) AND (nc_entry.priority != m.priority OR nc_entry.key IS NOT {_KEY})"
            )
        ],
    ),
    Rule(
        "nc_entry",
        f"SELECT {_ENTRY}, 'its state ' || state || ' is unknown' FROM nc_entry WHERE state NOT BETWEEN 1 AND 5",
        "it is ready again",
        [f"UPDATE nc_entry SET {_READY} WHERE state NOT BETWEEN 1 AND 5"],
    ),
    Rule(
        "nc_entry",
        f"SELECT {_ENTRY}, 'it is leased to nobody' FROM nc_entry"
        " WHERE state = 2 AND (lease IS NULL OR owner IS NULL OR owner NOT IN (SELECT id FROM nc_owner))",
        "it is ready again, as suspect",
        [
            (
                f"UPDATE nc_entry SET {_READY}, suspect = 1"
                " WHERE state = 2 AND (lease IS NULL OR owner IS NULL OR owner NOT IN (SELECT id FROM nc_owner))"
            )
        ],
    ),
    Rule(
        "nc_entry",
        f"SELECT {_ENTRY}, 'it waits for a time that is not known' FROM nc_entry"
        " WHERE state = 5 AND not_before IS NULL",
        "it is ready",
        [f"UPDATE nc_entry SET {_READY} WHERE state = 5 AND not_before IS NULL"],
    ),
    # Keys
    Rule(
        "nc_held",
        "SELECT 'key ' || key || ' in position ' || position, 'its holder has no entry' FROM nc_held h"
        " WHERE NOT EXISTS (SELECT 1 FROM nc_entry e WHERE e.seq = h.seq AND e.position = h.position AND"
        " e.key = h.key AND e.state != 4)",
        "the key is free",
        [
            (
                "DELETE FROM nc_held WHERE NOT EXISTS (SELECT 1 FROM nc_entry e WHERE e.seq = nc_held.seq"
                " AND e.position = nc_held.position AND e.key = nc_held.key AND e.state != 4)"
            )
        ],
    ),
    Rule(
        "nc_entry",
        f"SELECT {_ENTRY}, 'it waits for a key that nobody holds' FROM nc_entry e WHERE {_STUCK}",
        "it is ready",
        [f"UPDATE nc_entry AS e SET {_READY} WHERE {_STUCK}"],
    ),
    # Who still wants what
    Rule(
        "nc_message",
        "SELECT m.seq, 'retention may take it, and somebody has not settled it' FROM nc_message m"
        f" WHERE m.state IN (1, 2) AND EXISTS (SELECT 1 FROM nc_position p WHERE {_LIVE} AND {_UNSETTLED})",
        "it is open again",
        [
            (
                f"UPDATE nc_message AS m SET state = {_OPEN}"
                f" WHERE m.state IN (1, 2) AND EXISTS (SELECT 1 FROM nc_position p WHERE {_LIVE} AND {_UNSETTLED})"
            )
        ],
    ),
    Rule(
        "nc_message",
        f"SELECT m.seq, 'nobody can get it any more' {_NOBODY}",
        "it is ready again for every group of its channel",
        [
            "CREATE TEMP TABLE again AS SELECT m.seq " + _NOBODY,
            f"{_BACK} FROM temp.again a JOIN nc_message m ON m.seq = a.seq JOIN nc_position p ON {_GROUP}",
            "DROP TABLE temp.again",
        ],
    ),
    Rule(
        "nc_position",
        "SELECT p.id, 'it has fewer messages than it was given: ' || "
        f"{_FOUND} || ' of ' || p.entries FROM nc_position p WHERE p.ended = 0 AND p.entries > {_FOUND}",
        "what it may have lost is ready again for it",
        [
            (
                f"{_BACK} FROM nc_position p JOIN nc_message m ON m.channel = p.channel AND m.state IN (0, 3)"
                f" AND m.seq >= p.start WHERE p.ended = 0 AND p.entries > {_FOUND} AND {_TAKEN} AND NOT {_HAS_ENTRY}"
            ),
            _COUNT_AGAIN,
        ],
    ),
    # Counts
    Rule(
        "nc_position",
        f"SELECT p.id, 'it counts ' || p.entries || ' unsettled messages, of ' || {_FOUND} FROM nc_position p"
        f" WHERE p.ended = 0 AND p.entries < {_FOUND}",
        "it is counted again",
        [_COUNT_AGAIN],
    ),
    Rule(
        "nc_channel",
        "SELECT n.name, 'it counts ' || n.open || ' open, ' || n.waiting || ' waiting and ' || n.kept ||"
        f" ' kept messages of ' || n.kept_bytes || ' bytes, instead of ' || {_TOLD_COUNTS} FROM nc_channel n"
        f" WHERE (n.open, n.waiting, n.kept, n.kept_bytes) IS NOT ({', '.join(_COUNTS)})",
        "it is counted again",
        [f"UPDATE nc_channel AS n SET (open, waiting, kept, kept_bytes) = ({', '.join(_COUNTS)})"],
    ),
    # What else belongs to somebody
    _without("nc_seen", "channel", "nc_channel", "key", "its channel is missing"),
    _without("nc_inbox", "owner", "nc_owner", "address", "its owner is missing"),
    _gone("nc_reply", "number", "its inbox is missing", "address NOT IN (SELECT address FROM nc_inbox)"),
    Rule(
        "nc_inbox",
        "SELECT address, 'it counts ' || waiting || ' replies, of ' || (SELECT count(*) FROM nc_reply r"
        " WHERE r.address = nc_inbox.address) FROM nc_inbox"
        " WHERE waiting != (SELECT count(*) FROM nc_reply r WHERE r.address = nc_inbox.address)",
        "it is counted again",
        ["UPDATE nc_inbox SET waiting = (SELECT count(*) FROM nc_reply r WHERE r.address = nc_inbox.address)"],
    ),
    _without("nc_lost", "owner", "nc_owner", "'of owner ' || owner", "its owner is missing"),
)
