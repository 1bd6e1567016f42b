"""The command line of every benchmark file: check, measure, print, and write JSON when asked."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks._harness import Benchmark, Settings, measure, verify
from benchmarks._report import environment, headline, record, render, render_targets

__all__ = ["Extra", "arguments", "main", "settings_of"]


class Extra(Protocol):
    """Options of some questions only."""

    def declare(self, parser: argparse.ArgumentParser) -> None: ...
    def read(self, options: argparse.Namespace) -> None: ...


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--pairs", type=int, help="paired rounds (default: each benchmark's own, at least 15)")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of messages")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--no-collector", action="store_true", help="garbage collector off while timed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here")
    return parser


def settings_of(options: argparse.Namespace) -> Settings:
    return Settings(
        pairs=options.pairs,
        scale=options.scale,
        loop_factory=_uvloop() if options.loop == "uvloop" else asyncio.new_event_loop,
        collector=not options.no_collector,
    )


def main(benchmarks: Sequence[Benchmark], extra: Extra | None = None) -> None:
    parser = arguments(benchmarks[0].question)
    if extra:
        extra.declare(parser)
    options = parser.parse_args()
    if extra:
        extra.read(options)
    settings = settings_of(options)
    where = environment(settings)
    print(headline(where), flush=True)
    results = []
    for benchmark in benchmarks:
        verify(benchmark, settings)
        results.append(record(benchmark, measure(benchmark, settings)))
        print("\n" + render(results[-1]), flush=True)
    if targets := [target for result in results for target in result["targets"]]:
        print("\n" + render_targets(targets), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"environment": where, "results": results}, indent=1) + "\n")


def _uvloop() -> Any:
    try:
        import uvloop
    except ImportError:
        raise SystemExit("uvloop is not installed: pip install uvloop") from None
    return uvloop.new_event_loop
