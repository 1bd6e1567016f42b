"""``neuralcore store``: what it prints, and its exit codes. 0: fine, 1: damage, 2: called wrongly or cannot work."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from neuralcore_transports.sqlite.command import app
from tests.transports.sqlite.stores import damage, make


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "bus.db"
    make(made)
    return made


@pytest.fixture
def damaged(path: Path) -> Path:
    damage(path, "UPDATE nc_message SET body = x'00' WHERE seq = 8", "UPDATE nc_channel SET open = 5 WHERE id = 2")
    return path


def test_a_store_that_is_whole(path: Path) -> None:
    for option in ((), ("--quick",)):
        result = call("check", path, *option)
        assert (result.exit_code, result.output) == (0, f"{path}: 120 messages, 0 in quarantine: all is well\n")
    found = json.loads(call("check", path, "--json").stdout)
    assert (found["ok"], found["messages"], found["findings"]) == (True, 120, [])


def test_damage_has_a_line_each_and_exit_code_1(damaged: Path) -> None:
    result = call("check", damaged)
    assert result.exit_code == 1
    assert "nc_message 8: its checksum is wrong; it is moved to the quarantine\n" in result.output
    assert f"neuralcore store repair {damaged}" in result.output
    result = call("check", damaged, "--json")
    assert result.exit_code == 1
    assert {row["table"] for row in json.loads(result.stdout)["findings"]} == {"nc_message", "nc_channel"}


def test_repairing_says_what_was_done_and_lost(damaged: Path) -> None:
    result = call("repair", damaged)
    assert result.exit_code == 0, result.output
    assert "lost: message 8 of channel" in result.output
    assert f"the file as it was: {damaged}.before-repair\n" in result.output
    result = call("repair", damaged, "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["ok"], found["done"]) == (0, True, [])
    assert call("check", damaged).exit_code == 0


def test_compacting_says_what_was_gained(path: Path) -> None:
    result = call("compact", path)
    assert result.exit_code == 0
    assert "fewer than before" in result.output
    assert json.loads(call("compact", path, "--json").stdout)["gained"] == 0


def test_export_is_lines_of_json(damaged: Path) -> None:
    result = call("export", damaged, "--channel", "orders.new")
    assert result.exit_code == 1, "a message in it is damaged"
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert {line["channel"] for line in lines} == {"orders.new"}
    assert len(lines) == 60
    call("repair", damaged)
    assert call("export", damaged).exit_code == 0
    assert len(call("export", damaged, "--quarantine").stdout.splitlines()) == 1


def test_export_stops_when_its_reader_does(path: Path) -> None:
    program = f"from neuralcore_transports.sqlite.command import app; app(['export', {str(path)!r}])"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.parametrize("command", ["check", "repair", "compact", "export"])
def test_wrong_usage_is_exit_code_2(path: Path, command: str) -> None:
    for arguments in ([], ["/no/such/file"], [path.parent], [path, "--nonsense"]):
        result = call(command, *arguments)
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.output


def test_a_wrong_pattern_is_exit_code_2(path: Path) -> None:
    assert call("export", path, "--channel", "a..b").exit_code == 2


def test_a_file_in_use_is_exit_code_2(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT 1 FROM nc_store").fetchone()
        for command in ("repair", "compact"):
            result = call(command, path)
            assert result.exit_code == 2
            assert "close every bus and program" in result.output
