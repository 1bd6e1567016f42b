"""The command line: what it prints, its exit codes, and what it says to wrong input."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
from typer.testing import CliRunner, Result

import neuralcore
from neuralcore.cli.app import app

PROGRAM = [sys.executable, "-m", "neuralcore.cli"]
PLAIN = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env=PLAIN)


def test_help_names_every_command() -> None:
    result = call("--help")
    assert result.exit_code == 0
    for command in ("demo", "bench", "conformance", "info"):
        assert command in result.output
        assert call(command, "--help").exit_code == 0


def test_version() -> None:
    result = call("--version")
    assert (result.exit_code, result.output.strip()) == (0, neuralcore.__version__)


def test_info_as_json() -> None:
    result = call("info", "--json")
    found = json.loads(result.output)
    assert result.exit_code == 0
    assert found["version"] == neuralcore.__version__
    assert found["core"] == ("native" if neuralcore.is_native_available() else "fallback")
    assert {"memory", "native"} <= set(found["transports"])


def test_info_for_people() -> None:
    result = call("info")
    assert result.exit_code == 0
    assert "transports" in result.output


def test_demo_as_json_is_one_document() -> None:
    result = call("demo", "--seconds", "0.5", "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["ok"]) == (0, True), found["checks"]


def test_demo_without_a_terminal_prints_plain_lines() -> None:
    result = call("demo", "--seconds", "0.5")
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    assert re.search(r"^dead     a torn page", result.output, re.MULTILINE)
    assert re.search(r"^urgent   a reader asks", result.output, re.MULTILINE)
    assert "sums add up" in result.output


def test_bench_as_json() -> None:
    result = call("bench", "--messages", "1000", "--rounds", "3", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert found["messages"] == 1000
    assert found["ratio"] > 0


def test_bench_for_people() -> None:
    result = call("bench", "--messages", "1000", "--rounds", "3")
    assert result.exit_code == 0
    assert "asyncio.Queue" in result.output


def test_conformance_as_json() -> None:
    result = call("conformance", "native://", "--only", "isolation", "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["ok"]) == (0, True)
    assert {row["group"] for row in found["results"]} == {"isolation"}


def test_conformance_for_people() -> None:
    result = call("conformance", "native://", "--only", "isolation")
    assert result.exit_code == 0
    assert re.search(r"\d+ pass, 0 fail", result.output)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "No such command"),
        (["demo", "--seconds", "soon"], "--seconds"),
        (["demo", "--seconds", "-1"], "--seconds"),
        (["bench", "--messages", "1"], "--messages"),
        (["conformance"], "Missing argument"),
        (["conformance", "carrier-pigeon://loft"], "no transport for carrier-pigeon://"),
        (["conformance", "not a url"], "scheme://"),
        (["conformance", "native://host"], "no host, path or options"),
        (["conformance", "native://", "--only", "nothing-like-it"], "nothing-like-it"),
    ],
)
def test_wrong_input_says_what_is_wrong(arguments: list[str], says: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert says in result.output
    assert "Traceback" not in result.output


def test_an_unknown_scheme_names_the_installed_ones() -> None:
    assert re.search(r"installed: .*memory.*native", call("conformance", "carrier-pigeon://loft").output)


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_its_extra_it_says_what_to_install(missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from neuralcore.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=PLAIN)
    assert done.returncode == 1
    assert "pip install 'neuralcore-runtime[cli]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_on_the_fallback_it_says_so_beside_the_document() -> None:
    environment = {**PLAIN, "NEURALCORE_NATIVE": "0"}
    done = subprocess.run([*PROGRAM, "info", "--json"], capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout)["core"] == "fallback"
    assert done.stderr.count("switched off by NEURALCORE_NATIVE=0") == 1


def test_interrupting_the_demo_is_clean() -> None:
    with subprocess.Popen(
        [*PROGRAM, "demo", "--seconds", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**PLAIN, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=20)
    assert process.returncode == 130
    assert error.splitlines()[-1] == "neuralcore: interrupted; everything is closed"
    assert "Traceback" not in error


def test_a_reader_that_goes_away_ends_the_demo() -> None:
    with subprocess.Popen(
        [*PROGRAM, "demo", "--seconds", "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=PLAIN
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        error = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in error


# Commands of other distributions


def entry(value: str, name: str = "store") -> list[EntryPoint]:
    return [EntryPoint(name, value, "neuralcore.commands")]


def test_a_command_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    found = entry("neuralcore_transports.sqlite.command:app")
    monkeypatch.setattr("neuralcore.cli.commands.entry_points", lambda group: found)
    assert re.search(r"store +Look after the file of an SQLite store", call("--help").output)
    assert call("store", "check", "/no/such/file").exit_code == 2


@pytest.mark.parametrize(
    ("found", "package"),
    [([], "neuralcore-transports"), (entry("there_is_no_such_package.at_all:app"), None)],
)
def test_a_command_without_its_distribution_says_what_to_install(monkeypatch, found, package) -> None:
    monkeypatch.setattr("neuralcore.cli.commands.entry_points", lambda group: found)
    if package is None:  # the command's own package is missing, which is no missing extra
        assert isinstance(call("store").exception, ModuleNotFoundError)
        return
    assert "pip install 'neuralcore-runtime[sqlite]'" in call("--help").output
    result = call("store", "check", "x.db", "--quick")
    assert result.exit_code == 2
    assert f"the package {package!r} is not installed: pip install 'neuralcore-runtime[sqlite]'" in result.output


def test_a_command_without_its_extra_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['aiosqlite'] = None\n"
        "from importlib.metadata import EntryPoint\nimport neuralcore.cli.commands as c\n"
        "found = [EntryPoint('store', 'neuralcore_transports.sqlite.command:app', c.GROUP)]\n"
        "c.entry_points = lambda group: found\n"
        "from neuralcore.cli import main; sys.argv = ['neuralcore', 'store', 'check', 'x.db']; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=PLAIN)
    assert done.returncode == 2
    assert "pip install 'neuralcore-runtime[sqlite]'" in done.stderr
    assert "Traceback" not in done.stderr
