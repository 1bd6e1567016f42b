"""Shows the suite's verdicts as they come."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text
from typer import BadParameter

from neuralcore.messaging.registry import transport_for
from neuralcore.testing.conformance.catalogue import catalogue
from neuralcore.testing.conformance.report import Report, Result, Verdict
from neuralcore.testing.conformance.runner import run

__all__ = ["prove"]

STYLES = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.NOT_DECLARED: "dim", Verdict.UNPROVEN: "yellow"}


def prove(out: Console, url: str, only: Sequence[str], *, quiet: bool) -> Report:
    """Raises BadParameter for an unknown promise or a URL that cannot be, and what making a bus on the URL raises."""
    _check_known(only)
    _check_url(url)
    logging.getLogger("asyncio").addHandler(logging.NullHandler())  # handlers that fail do so on purpose here
    group = ""

    def show(result: Result) -> None:
        nonlocal group
        if result.group != group:
            group = result.group
            out.print(Text(f"\n{group}", style="bold"))
        verdict = Text(f"  {result.verdict.value:<12} ", style=STYLES[result.verdict])
        out.print(verdict + Text(f"{'*' if result.mandatory else ' '} {result.promise}"), soft_wrap=True)
        if result.detail:
            out.print(Text(f"  {'':<14} {result.detail}", style="dim"), soft_wrap=True)

    report = run(url, only=only, progress=None if quiet else show)
    if not quiet:
        counts = ", ".join(f"{count} {verdict}" for verdict, count in report.counts().items())
        out.print(f"\n{url}: {counts} (* mandatory)")
    return report


def _check_url(url: str) -> None:
    """The suite knows some transports by their scheme; the rest of the URL has to be right as well."""
    try:
        transport_for(url)
    except ValueError as error:
        raise BadParameter(str(error), param_hint="URL") from None


def _check_known(only: Sequence[str]) -> None:
    promises = catalogue()
    groups = list(dict.fromkeys(promise.group for promise in promises))
    known = {*groups, *(promise.name for promise in promises), *map(str, promises)}
    for name in only:
        if name not in known:
            raise BadParameter(
                f"no promise and no group is called {name!r}; groups: {', '.join(groups)}", param_hint="--only"
            )
