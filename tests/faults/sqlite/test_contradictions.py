"""Row 14, as flipped bits have shown it: contradicting tables are StoreCorrupt at once, and never a hang."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from zlib import crc32

import pytest

from neuralcore_transports.sqlite import StoreCorrupt
from neuralcore_transports.sqlite.store import fetch, rows
from tests.faults.sqlite.files import Maker, envelope
from tests.faults.sqlite.survivors import survivors


@pytest.fixture
def database(tmp_path: Path) -> Path:
    maker = Maker(tmp_path / "bus.db")
    maker.publish(*(envelope(number) for number in range(5)))
    maker.close()
    return tmp_path / "bus.db"


def change(database: Path, statement: str, *values: object) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(statement, values)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE nc_channel SET config = '{'", "configuration"),
        ('UPDATE nc_channel SET config = \'{"name":""}\'', "configuration"),
        ("UPDATE nc_channel SET config = CAST(x'ff7b' AS TEXT)", "decode"),
        (
            "INSERT INTO nc_entry (seq, position, state, priority, rank) SELECT seq, 1, 4, 50, seq FROM nc_message",
            "UNIQUE",
        ),
        ("DELETE FROM nc_store", "nc_store"),
    ],
)
def test_a_contradiction_is_a_damaged_store(database: Path, statement: str, says: str) -> None:
    change(database, statement)
    found = survivors(database)
    assert isinstance(found.error, StoreCorrupt)
    assert says in str(found.error)


def test_an_index_that_names_nothing_does_not_hang(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged nc_message_order finds a number whose row is elsewhere; a fetch looked for it for ever, inside its
    transaction, and so stopped every process on the file."""
    monkeypatch.setattr(fetch.Fetcher, "_new_rows", lambda *_: (0, []))
    found = survivors(database)
    assert isinstance(found.error, StoreCorrupt)
    assert "index" in str(found.error)


@pytest.mark.parametrize("attributes", ["{", '{"id":7}', "null", '{"id":"m","headers":{"a":1}}'])
def test_attributes_that_nobody_understands_are_set_aside(database: Path, attributes: str) -> None:
    """Row 28: their checksum is right, so that whoever wrote them meant it; the others are not to wait for ever."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        query = "SELECT seq, channel, priority, mono, wall, body FROM nc_message ORDER BY seq LIMIT 1"
        *numbers, body = connection.execute(query).fetchone()
        checksum = crc32(body, crc32(attributes.encode(), crc32(rows._numbers(*numbers))))
        connection.execute(
            "UPDATE nc_message SET attributes = ?, checksum = ? WHERE seq = ?", (attributes, checksum, numbers[0])
        )
    found = survivors(database)
    assert found.error is None
    assert found.ids == ["m-1", "m-2", "m-3", "m-4"]
    assert "cannot be understood" in found.told[0]
