"""The commands. Each has ``--json``; exit code 0: all is well, 1: it is not, 2: called wrongly."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

import neuralcore
from neuralcore.cli.commands import Commands
from neuralcore.cli.interrupt import interruptible
from neuralcore.cli.output import Output
from neuralcore.cli.reporting import Json, end, reported

if TYPE_CHECKING:
    from neuralcore.cli.bench import Comparison

__all__ = ["app"]

app = typer.Typer(
    name="neuralcore",
    cls=Commands,
    help="NeuralCore: a message bus for agents and services.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Output()


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    logging.getLogger("neuralcore").addHandler(logging.NullHandler())  # what it would say, the commands show
    if version:
        print(neuralcore.__version__)
        raise typer.Exit


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(min=0.0, max=600.0, help="About how long the agents think in all.")] = 6.0,
    as_json: Json = False,
) -> None:
    """Watch a team of agents read the documentation on the bus."""
    from neuralcore.cli.demo.command import demo as play

    with reported():
        ok, document = play(out, seconds=seconds, as_json=as_json)
        end(ok, document, as_json)


@app.command()
def bench(
    messages: Annotated[int, typer.Option(min=1000, help="Messages per round.")] = 50_000,
    rounds: Annotated[int, typer.Option(min=3, help="Paired repetitions.")] = 15,
    as_json: Json = False,
) -> None:
    """Compare the bus with a bare asyncio.Queue on this machine, in some seconds."""
    from neuralcore.cli.bench import compare

    with reported():
        found = interruptible(compare(messages=messages, rounds=rounds))
        if not as_json:
            out.print(_compared(found))
        end(True, found.as_dict(), as_json)


@app.command()
def conformance(
    url: Annotated[str, typer.Argument(help="The transport, as in native:// or memory://")],
    only: Annotated[list[str] | None, typer.Option(help="A promise or a group of promises; may be repeated.")] = None,
    as_json: Json = False,
) -> None:
    """Prove the promises of a transport, one by one."""
    from neuralcore.cli.conformance import prove

    with reported():
        report = prove(out, url, only or (), quiet=as_json)
        end(report.ok, report.to_dict(), as_json)


@app.command()
def info(as_json: Json = False) -> None:
    """What is installed here: versions, the core in use, transports, features."""
    document = {"version": neuralcore.__version__, **neuralcore.get_available_features()}
    if not as_json:
        table = Table(show_header=False)
        for name, value in document.items():
            table.add_row(name, _plain(value))
        out.print(table)
    end(True, document, as_json)


def _compared(found: Comparison) -> Table:
    spread = (
        f"{found.ratio:.2f} × asyncio.Queue, {found.ratio_low:.2f} to {found.ratio_high:.2f} over {found.rounds} rounds"
    )
    debug = "; a debug build: these figures say nothing" if found.debug_build else ""
    table = Table(title=f"{found.messages:,} messages, {found.core} core, {found.python}", caption=spread + debug)
    table.add_column("one producer, one async handler that does nothing")
    table.add_column("ns a message", justify="right")
    rows = (("the bus", found.bus_ns), ("asyncio.Queue", found.queue_ns), ("no queue at all", found.loop_ns))
    for name, nanoseconds in rows:
        table.add_row(name, f"{nanoseconds:,.0f}")
    return table


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return "\n".join(f"{name}: {_plain(item)}" for name, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
