"""Commands that other distributions bring.

One is an entry point in the group ``neuralcore.commands``: its name is what the user types, its value a
``typer.Typer``.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

import typer
from rich.markup import escape
from typer.core import TyperGroup

from neuralcore.cli.reporting import reported
from neuralcore.messaging.errors import MissingExtra

__all__ = ["GROUP", "Commands"]

GROUP: Final = "neuralcore.commands"
_EXTRAS: Final = {"store": "sqlite"}
"""Commands that are said to exist although what brings them is not installed, and the extra that does."""


class Commands(TyperGroup):
    """This distribution's own, and those that are found."""

    def list_commands(self, context: Any) -> list[str]:
        return [*super().list_commands(context), *sorted(_found().keys() | _EXTRAS.keys())]

    def get_command(self, context: Any, name: str) -> Any:
        own = super().get_command(context, name)
        if own is not None:
            return own
        entry = _found().get(name)
        if entry is None:
            return _missing(name, "neuralcore-transports") if name in _EXTRAS else None
        try:
            command = typer.main.get_command(entry.load())
            command.name = name
            return command
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package in ("", entry.module.partition(".")[0]):
                raise  # the command itself is broken
            return _missing(name, package)


def _found() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _missing(name: str, package: str) -> Any:
    """Stands where the command would, and says what to install."""
    extra = _EXTRAS.get(name)
    pip = f"pip install {package}" if extra is None else f"pip install 'neuralcore-runtime[{extra}]'"
    stub = typer.Typer(add_completion=False)

    @stub.command(
        name,
        help=f"(needs: {escape(pip)})",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    )
    def complain() -> None:
        with reported():
            raise MissingExtra(package, pip)

    return typer.main.get_command(stub)
