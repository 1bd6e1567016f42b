"""Every finding of a check, by what it is there for; repaired, and everything flows through a real bus."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from neuralcore import MessageBus
from neuralcore_transports.sqlite.care import check, repair
from neuralcore_transports.sqlite.care.rules import RULES
from tests.transports.sqlite.stores import CHANNELS, ask, damage, drained, make

NEW = "(SELECT id FROM nc_channel WHERE name = 'orders.new')"
MAIL = (
    "(SELECT p.id FROM nc_position p JOIN nc_subscriber g ON g.id = p.subscriber"
    f" WHERE g.name = 'mail' AND p.channel = {NEW})"
)
AUDIT = MAIL.replace("mail", "audit")
FAR = f"(SELECT max(seq) FROM nc_message WHERE channel = {NEW})"
LEASED = "(SELECT min(seq) FROM nc_entry WHERE state = 2)"
KEYED = "(SELECT min(seq) FROM nc_entry WHERE state = 2 AND key IS NOT NULL)"

DAMAGE = {
    "its checksum is wrong": [f"UPDATE nc_message SET body = CAST(body || '!' AS BLOB) WHERE seq = {FAR}"],
    "its state 9 is unknown": [f"UPDATE nc_message SET state = 9 WHERE seq = {FAR}"],
    "it was published with a delay and is not marked so": ["UPDATE nc_message SET state = 0 WHERE state = 3"],
    "it is marked as delayed and was published without one": [f"UPDATE nc_message SET state = 3 WHERE seq = {FAR}"],
    "its positions are there and it is not": ["DELETE FROM nc_subscriber WHERE name = 'mail'"],
    "it is a broadcast of nobody": ["INSERT INTO nc_subscriber (owner) VALUES (12345)"],
    "its group is missing": ["INSERT INTO nc_pattern VALUES (77, 'x')"],
    "its messages are there and it is not": ["DELETE FROM nc_channel WHERE name = 'orders.new'"],
    "was given out already": ["UPDATE nc_store SET next = 5"],
    "it is beyond every number": [f"UPDATE nc_cursor SET next = 1 << 61 WHERE position = {AUDIT}"],
    "its start is beyond every number": [f"UPDATE nc_position SET start = 1 << 61 WHERE id = {AUDIT}"],
    "its channel is missing": ["INSERT INTO nc_position (subscriber, channel, start) VALUES (1, 99, 0)"],
    "there is none on the channel orders.new": [f"DELETE FROM nc_position WHERE id = {AUDIT}"],
    "priority 50: its position is missing": ["INSERT INTO nc_cursor VALUES (99, 50, 7)"],
    "in position 99: its position is missing": [
        f"INSERT INTO nc_entry (seq, position, state, priority, rank) VALUES ({FAR}, 99, 1, 50, 1)"
    ],
    "its message is missing": [f"DELETE FROM nc_message WHERE seq = {LEASED}"],
    "its message is in another channel": [
        (
            f"INSERT INTO nc_entry (seq, position, state, priority, rank) SELECT max(seq), {AUDIT}, 1, 50, 1"
            f" FROM nc_message WHERE channel != {NEW}"
        )
    ],
    "it is taken, and will be taken once more": [f"UPDATE nc_cursor SET next = 0 WHERE position = {AUDIT}"],
    "its priority or key is not its message's": [f"UPDATE nc_entry SET priority = 7, key = 'x' WHERE seq = {LEASED}"],
    "its state 7 is unknown": [f"UPDATE nc_entry SET state = 7 WHERE seq = {LEASED}"],
    "it is leased to nobody": ["UPDATE nc_entry SET owner = 4711 WHERE state = 2"],
    "it waits for a time that is not known": [f"UPDATE nc_entry SET state = 5 WHERE seq = {LEASED}"],
    "its holder has no entry": [f"DELETE FROM nc_entry WHERE seq = {KEYED}"],
    "it waits for a key that nobody holds": [
        "DELETE FROM nc_held",
        "UPDATE nc_entry SET state = 4 WHERE key IS NOT NULL",
    ],
    "retention may take it, and somebody has not settled it": [f"UPDATE nc_message SET state = 2 WHERE seq = {FAR}"],
    "nobody can get it any more": [
        f"DELETE FROM nc_entry WHERE position IN ({MAIL}, {AUDIT})",
        (
            f"INSERT OR REPLACE INTO nc_cursor SELECT p.id, m.priority, {FAR} + 1 FROM nc_position p, nc_message m"
            f" WHERE p.channel = {NEW} AND m.channel = {NEW}"
        ),
    ],
    "it has fewer messages than it was given": [f"DELETE FROM nc_entry WHERE position = {AUDIT} AND state = 2"],
    "unsettled messages, of": [f"UPDATE nc_position SET entries = 3 WHERE id = {AUDIT}"],
    "it counts 77 open": ["UPDATE nc_channel SET open = 77 WHERE name = 'orders.new'"],
    "kept messages of 900 bytes": ["UPDATE nc_channel SET kept_bytes = 900"],
    "its configuration cannot be read": ["UPDATE nc_channel SET config = '{' WHERE name = 'orders.new'"],
    "ghost: its channel is missing": ["INSERT INTO nc_seen VALUES (99, 'ghost', 1, 1)"],
    "its owner is missing": ["INSERT INTO nc_inbox VALUES ('_inbox.x', 99, 0)"],
    "its inbox is missing": ["INSERT INTO nc_reply (address, envelope) VALUES ('_inbox.y', x'00')"],
    "it counts 4 replies": ["INSERT INTO nc_inbox VALUES ('_inbox.z', (SELECT min(id) FROM nc_owner), 4)"],
    "of owner 99: its owner is missing": ["INSERT INTO nc_lost VALUES (99, 1)"],
    "its only row is missing": ["DELETE FROM nc_store"],
    "nc_entry_ready: it is missing": ["DROP INDEX nc_entry_ready"],
    "nc_message_order: it is not what it should be": [
        "DROP INDEX nc_message_order",
        "CREATE INDEX nc_message_order ON nc_message (seq)",
    ],
    "nc_held: it is missing": ["DROP TABLE nc_held"],
}
GONE = {"its checksum is wrong": 1, "its message is missing": 1}
"""Messages that nothing brings back."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bus.db"


def test_a_whole_store_has_no_findings(path: Path) -> None:
    owed = make(path)
    before = path.read_bytes()
    for quick in (False, True):
        report = check(path, quick=quick)
        assert (report.ok, report.messages, report.quarantined) == (True, len(owed["audit"]), 0), report
    assert path.read_bytes() == before


@pytest.mark.parametrize("finding", DAMAGE)
async def test_damage_is_found_put_right_and_everything_flows(path: Path, finding: str) -> None:
    owed = make(path)
    damage(path, *DAMAGE[finding])
    report = check(path)
    assert any(finding in str(each) for each in report.findings), [str(each) for each in report.findings]
    json.dumps(report.as_dict())
    repaired = repair(path)
    assert repaired.ok, [str(each) for each in repaired.left]
    assert any(finding in str(each) for each in repaired.done), [str(each) for each in repaired.done]
    assert len(repaired.lost) >= GONE.get(finding, 0)
    assert check(path).ok
    lost = missing(owed["audit"], path)
    assert len(lost) == GONE.get(finding, 0)
    group = "recovered-1" if finding == "its positions are there and it is not" else "mail"
    assert set(await drained(path, group, owed["mail"] - lost)) >= owed["mail"] - lost
    assert set(await drained(path, "audit", owed["audit"] - lost)) == owed["audit"] - lost


def missing(ids: set[str], path: Path) -> set[str]:
    """What was not there any more, or damaged, before it was repaired."""
    with closing(sqlite3.connect(f"{path}.before-repair")) as connection:
        rows = connection.execute(
            "SELECT json_extract(attributes, '$.id') FROM nc_message WHERE CAST(body AS TEXT) NOT LIKE '%!'"
        )
        return ids - {id for (id,) in rows}


def test_every_rule_has_its_damage_here() -> None:
    assert len(DAMAGE) > len(RULES)
    for rule in RULES:
        said = [text.strip(" ,:") for text in rule.find.split("'")[1::2]]
        assert any(len(text) > 6 and text in found for found in DAMAGE for text in said), rule.find


async def test_it_looks_beside_a_bus_that_uses_the_file(path: Path) -> None:
    make(path)
    async with MessageBus(f"sqlite://{path}") as bus:
        for number in range(20):
            await bus.publish(CHANNELS[1], number)
            if number % 5 == 0:
                assert check(path).ok
        assert ask(path, "SELECT count(*) FROM nc_message WHERE attributes LIKE '%json%'")


def test_what_is_in_quarantine_is_counted_and_no_damage(path: Path) -> None:
    make(path)
    damage(path, "INSERT INTO nc_quarantine VALUES (1, 1, 'c', 0, 'because', x'00')")
    report = check(path)
    assert (report.ok, report.quarantined) == (True, 1)
