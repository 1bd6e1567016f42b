"""``neuralcore store``: looking after the file of an SQLite store."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from neuralcore.cli.output import Output
from neuralcore.cli.reporting import Json, end, reported
from neuralcore.messaging.errors import InvalidChannelName
from neuralcore.messaging.names import validate_pattern
from neuralcore_transports.sqlite import care

__all__ = ["app"]

app = typer.Typer(
    help="Look after the file of an SQLite store.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Output()

Store = Annotated[Path, typer.Argument(metavar="PATH", help="The file, as in /var/lib/app/bus.db")]


@app.command()
def check(
    path: Store,
    quick: Annotated[bool, typer.Option("--quick", help="Do not compare indexes with their tables.")] = False,
    as_json: Json = False,
) -> None:
    """Look for damage; buses may go on using the file."""
    with reported():
        report = care.check(path, quick=quick)
        if not as_json:
            _say(report.findings)
            messages = "messages that cannot be counted" if report.messages is None else f"{report.messages:,} messages"
            state = "all is well" if report.ok else f"{len(report.findings):,} findings"
            _line(f"{path}: {messages}, {report.quarantined:,} in quarantine: {state}")
            if not report.ok:
                _line(f"put it right with `neuralcore store repair {path}`, when nobody uses it")
        end(report.ok, report.as_dict(), as_json)


@app.command()
def repair(path: Store, as_json: Json = False) -> None:
    """Put right what a check finds, after making a copy; nobody else may use the file."""
    with reported():
        report = care.repair(path)
        if not as_json:
            _say(report.done)
            for moved in report.moved:
                if moved.rows or moved.lost != 0:
                    _line(f"moved {moved.rows:,} rows of {moved.table}")
            for lost in report.lost:
                _line(f"lost: {lost}")
            _say(report.left)
            done = f"{len(report.done):,} findings put right" if report.done else "there was nothing to repair"
            _line(f"{path}: {done}, {len(report.lost):,} losses, {len(report.left):,} findings left")
            _line(f"the file as it was: {report.copy}")
        end(report.ok, report.as_dict(), as_json)


@app.command()
def compact(path: Store, as_json: Json = False) -> None:
    """Give the room of what is gone back to the disk; nobody else may use the file."""
    with reported():
        report = care.compact(path)
        if not as_json:
            _line(f"{path}: {report.after:,} bytes, {report.gained:,} fewer than before")
        end(True, report.as_dict(), as_json)


@app.command()
def export(
    path: Store,
    channel: Annotated[str | None, typer.Option(metavar="PATTERN", help="Only of channels that it covers.")] = None,
    quarantine: Annotated[bool, typer.Option("--quarantine", help="What was found damaged and set aside.")] = False,
) -> None:
    """Print every message as one line of JSON; buses may go on using the file."""
    with reported():
        whole = True
        for found in care.export(path, pattern=_pattern(channel), quarantine=quarantine):
            whole &= "damaged" not in found
            _write(json.dumps(found, ensure_ascii=True))
        raise typer.Exit(0 if whole else 1)


def _pattern(pattern: str | None) -> str | None:
    try:
        return None if pattern is None else validate_pattern(pattern)
    except InvalidChannelName as error:
        raise typer.BadParameter(str(error), param_hint="--channel") from None


def _say(findings: Sequence[care.Finding]) -> None:
    for finding in findings:
        _line(str(finding))


def _line(text: str) -> None:
    # Names and rows may hold anything: surrogates, and what looks like markup.
    out.print(text.encode("ascii", "backslashreplace").decode(), markup=False, highlight=False, soft_wrap=True)


def _write(line: str) -> None:
    try:
        sys.stdout.write(line + "\n")
    except BrokenPipeError:
        out.on_broken_pipe()
