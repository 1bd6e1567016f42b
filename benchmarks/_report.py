"""What is written down: the machine, a table per question, the targets, and the same as JSON."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import _redis_server
from benchmarks._harness import Benchmark, Measurement, Settings, Spread, Target
from benchmarks._slow_disk import sync_more

__all__ = ["environment", "headline", "record", "render", "render_targets"]

ROOT = Path(__file__).parent.parent
PEERS = (
    "uvloop",
    "bubus",
    "diskcache",
    "honker",
    "huey",
    "litequeue",
    "localqueue",
    "persist-queue",
    "simplebroker",
    "redis",
    "hiredis",
    "faststream",
    "taskiq",
    "taskiq-redis",
    "celery",
    "confluent-kafka",
    "taskiq-aio-kafka",
)
SERVERS: list[Callable[[], str | None]] = [_redis_server.told]
"""Each says what there is to say about a server, where this run is about it."""


def environment(settings: Settings) -> dict[str, Any]:
    from neuralcore import _core

    loop = settings.loop_factory()
    loop.close()
    return {
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "loop": f"{type(loop).__module__}.{type(loop).__qualname__}",
        "core": _core.IMPLEMENTATION,
        "debug_build": _core.DEBUG_BUILD,
        "versions": {name: version for name in PEERS if (version := _version(name))},
        "commit": _commit(),
        "collector": "on" if settings.collector else "off while timed",
        "sync_more_us": sync_more(),
        "server": next((said for told in SERVERS if (said := told())), None),
    }


def headline(where: dict[str, Any]) -> str:
    lines = [
        f"{where['python']} on {where['cpu']} ({where['cpus']} CPUs), {where['system']}",
        f"core {where['core']}, {where['loop']}, garbage collector {where['collector']}, commit {where['commit']}",
    ]
    if where["server"]:
        lines.append(where["server"])
    if where["sync_more_us"]:
        lines.append(f"every sync takes {where['sync_more_us']:,} µs more than this disk needs")
    if where["debug_build"]:
        lines.append("WARNING: the core is a debug build; nothing below says anything about a release")
    return "\n".join(lines)


def record(benchmark: Benchmark, measurement: Measurement) -> dict[str, Any]:
    """Medians and spreads of every arm and metric, ratios against the subject, targets, and the raw rounds."""
    subject, *peers = (arm.name for arm in benchmark.arms)
    metrics = list(measurement.rounds[0][subject])
    return {
        "name": benchmark.name,
        "question": benchmark.question.strip(),
        "pairs": len(measurement.rounds),
        "metric": benchmark.metric,
        "arms": {
            arm.name: {
                metric: asdict(measurement.spread(arm.name, metric)) for metric in measurement.rounds[0][arm.name]
            }
            for arm in benchmark.arms
        },
        "ratios": {
            peer: {metric: asdict(measurement.ratio(subject, peer, metric)) for metric in metrics} for peer in peers
        },
        "targets": [_target(target, measurement) for target in benchmark.targets],
        "skipped": list(benchmark.skipped),
        "rounds": measurement.rounds,
    }


def render(result: dict[str, Any]) -> str:
    """A table: an arm a row, its metrics as medians, and how many times the subject's share it takes."""
    arms = result["arms"]
    metrics = list(next(iter(arms.values())))
    compared = result["metric"]
    rows = [["", *metrics, f"{compared} quartiles", "times the subject's"]]
    for name, values in arms.items():
        spread = Spread(**values[compared])
        ratio = result["ratios"].get(name, {}).get(compared)
        rows.append(
            [
                name,
                *(f"{values[metric]['median']:,.0f}" for metric in metrics),
                f"{spread.q1:,.0f} to {spread.q3:,.0f}",
                f"{ratio['median']:.2f} ({ratio['q1']:.2f} to {ratio['q3']:.2f})" if ratio else "1",
            ]
        )
    title = f"{result['name']}: {result['question']} ({result['pairs']} paired rounds)"
    return "\n".join([title, *_aligned(rows), *result["skipped"]])


def render_targets(targets: Iterable[dict[str, Any]]) -> str:
    rows = [["target", "goal", "floor", "measured", "quartiles", "by CPU", ""]]
    for target in targets:
        relation = "at most" if target["at_most"] else "at least"
        measured = Spread(**target["measured"])
        rows.append(
            [
                target["what"],
                f"{relation} {target['goal']:g}",
                "" if target["floor"] is None else f"{target['floor']:g}",
                f"{measured.median:.2f}",
                f"{measured.q1:.2f} to {measured.q3:.2f}",
                "" if target["by_cpu"] is None else f"{target['by_cpu']:.2f}",
                {"goal": "goal reached", "floor": "floor reached", "missed": "MISSED"}[target["verdict"]],
            ]
        )
    return "\n".join(_aligned(rows))


def _target(target: Target, measurement: Measurement) -> dict[str, Any]:
    """Judged by wall clock; the ratio of CPU times beside it tells how much a busy machine disturbed that."""
    measured = target.measured(measurement)
    timed = target.metric == "wall_ns" and "cpu_ns" in measurement.rounds[0][target.subject]
    by_cpu = replace(target, metric="cpu_ns").measured(measurement) if timed else None
    return {
        "what": target.what,
        "goal": target.goal,
        "floor": target.floor,
        "at_most": target.peer is None,
        "measured": asdict(measured),
        "by_cpu": None if by_cpu is None else by_cpu.median,
        "verdict": target.verdict(measured.median),
    }


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [_line(row, widths) for row in rows]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
    return "  ".join([first.strip().ljust(widths[0]), *others]).rstrip()


def _cpu() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or "unknown"
