"""Messages as lines of JSON, one moment of the file, in the order of their numbers. It holds one message at a time."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from neuralcore.messaging.names import matches
from neuralcore_transports.sqlite.care.alone import reading
from neuralcore_transports.sqlite.store.rows import COLUMNS, Corrupt, envelope_of
from neuralcore_transports.sqlite.store.schema import MessageState

__all__ = ["export"]

_STATES = {state.value: state.name.lower() for state in MessageState}


def export(path: Path, *, pattern: str | None = None, quarantine: bool = False) -> Iterator[dict[str, Any]]:
    """Each ready for JSON; what is damaged says so under ``damaged``. Raises TransportError."""
    with reading(path) as connection:
        for found in _set_aside(connection) if quarantine else _messages(connection):
            channel = found["channel"]
            if pattern is None or (channel is not None and matches(pattern, channel)):
                yield found


def _messages(connection: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    channels = dict(connection.execute("SELECT id, name FROM nc_channel"))
    groups = _Groups(connection)
    for state, *row in connection.execute(f"SELECT m.state, {COLUMNS} FROM nc_message m ORDER BY m.seq"):  # noqa: S608
        seq, channel, priority = row[:3]
        found: dict[str, Any] = {
            "number": seq,
            "channel": channels.get(channel),
            "state": _STATES.get(state, str(state)),
            "stored": _time(row[4]),
            "unsettled": groups.unsettled(seq, channel, priority, state),
        }
        try:
            envelope = envelope_of(row, channels.get(channel, ""))
        except Corrupt as error:
            yield {**found, "damaged": str(error), "content": repr(tuple(row))}
            continue
        attributes = json.loads(row[6])
        yield {**found, "priority": priority, **attributes, **_text("body", envelope.body)}


class _Groups:
    """Who has not settled a message; positions are few."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._positions: defaultdict[int, list[tuple[int, str, int]]] = defaultdict(list)
        self._cursors = {
            (position, priority): following
            for position, priority, following in connection.execute("SELECT position, priority, next FROM nc_cursor")
        }
        for id, name, channel, start in connection.execute(
            "SELECT p.id, g.name, p.channel, p.start FROM nc_position p JOIN nc_subscriber g ON g.id = p.subscriber"
            " WHERE g.name IS NOT NULL ORDER BY g.name"
        ):
            self._positions[channel].append((id, name, start))

    def unsettled(self, seq: int, channel: int, priority: int, state: int) -> list[str]:
        has = {
            position for (position,) in self._connection.execute("SELECT position FROM nc_entry WHERE seq = ?", (seq,))
        }
        return [
            name
            for id, name, start in self._positions.get(channel, ())
            if id in has or (state != MessageState.PLACED and seq >= self._cursors.get((id, priority), start))
        ]


def _set_aside(connection: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    for seq, channel, found, reason, content in connection.execute(
        "SELECT seq, channel, found, reason, content FROM nc_quarantine ORDER BY number"
    ):
        yield {"number": seq, "channel": channel, "found": _time(found), "reason": reason, **_text("content", content)}


def _text(name: str, content: bytes) -> dict[str, str]:
    try:
        return {name: content.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(content).decode()}


def _time(wall: object) -> str | None:
    try:
        return datetime.fromtimestamp(wall / 1e9, timezone.utc).isoformat()  # type: ignore[operator]
    except (TypeError, ValueError, OverflowError, OSError):
        return None
