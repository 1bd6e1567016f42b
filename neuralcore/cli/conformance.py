"""Shows the suite's verdicts as they come."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from neuralcore.testing.conformance.report import Report, Result, Verdict
from neuralcore.testing.conformance.runner import run

__all__ = ["prove"]

STYLES = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.NOT_DECLARED: "dim", Verdict.UNPROVEN: "yellow"}


def prove(out: Console, url: str, only: Sequence[str], *, quiet: bool) -> Report:
    group = ""

    def show(result: Result) -> None:
        nonlocal group
        if result.group != group:
            group = result.group
            out.print(Text(f"\n{group}", style="bold"))
        verdict = Text(f"  {result.verdict.value:<12} ", style=STYLES[result.verdict])
        out.print(verdict + Text(f"{'*' if result.mandatory else ' '} {result.promise}"))
        if result.detail:
            out.print(Text(f"  {'':<14} {result.detail}", style="dim"))

    report = run(url, only=only, progress=None if quiet else show)
    if not quiet:
        counts = ", ".join(f"{count} {verdict}" for verdict, count in report.counts().items())
        out.print(f"\n{url}: {counts} (* mandatory)")
    return report
