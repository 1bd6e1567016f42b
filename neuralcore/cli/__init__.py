"""The command line: ``neuralcore``. What it prints is for people; ``--json`` is for machines."""

from __future__ import annotations

__all__ = ["main"]

PIP = "pip install 'neuralcore-runtime[cli]'"


def main() -> None:
    """The entry point. Says which extra to install when the command line's own packages are missing."""
    try:
        from neuralcore.cli.app import app
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("rich", "typer"):
            raise
        from neuralcore.messaging.errors import MissingExtra

        raise SystemExit(f"neuralcore: {MissingExtra(package, PIP)}") from None
    app()
