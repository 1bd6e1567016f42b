"""Run every benchmark in a process of its own, then print the targets against what was measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks._cli import arguments
from benchmarks._redis_server import VERSIONS, binary
from benchmarks._report import render_targets
from tests.servers.missing import find

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"


DURABLE = ("durable_publish", "durable_flow", "durable_growth", "durable_processes", "durable_idle")
"""These make files."""
REDIS = ("redis_publish", "redis_consume", "redis_flow", "redis_latency", "redis_growth")
"""These start a server, which makes files too."""
KAFKA = ("kafka_publish", "kafka_consume", "kafka_flow", "kafka_latency", "kafka_growth", "kafka_transactions")
"""As these."""


@dataclass(frozen=True, slots=True)
class Run:
    name: str
    module: str
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    judged: bool = True


RUNS = (
    *(
        Run(name, name)
        for name in (
            "throughput",
            "pump",
            "backlog",
            "channels",
            "fanout",
            "wildcards",
            "threads",
            "handlers",
            "request_reply",
            "latency",
            "memory",
            "batch",
            "remote_path",
            *DURABLE,
            *REDIS,
            *KAFKA,
        )
    ),
    Run("fallback", "throughput", environment={"NEURALCORE_NATIVE": "0"}),
    Run("slow-disk", "durable_flow", options=("--slow-sync", "1000"), judged=False),
    Run("uvloop", "throughput", options=("--loop", "uvloop"), judged=False),
)


def _executed(run: Run, passed_on: list[str]) -> dict[str, Any]:
    print(f"\n=== {run.name}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        numbers = Path(folder) / "numbers.json"
        subprocess.run(
            [sys.executable, "-m", f"benchmarks.{run.module}", *run.options, *passed_on, "--json", str(numbers)],
            cwd=ROOT,
            env={**os.environ, **run.environment},
            check=True,
        )
        answer: dict[str, Any] = json.loads(numbers.read_text())
        return answer


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *(run.name for run in RUNS)], help="default: all")
    parser.add_argument("--directory", help="where the durable ones and servers make their files")
    parser.add_argument("--server-version", choices=VERSIONS, default=VERSIONS[0], help="of Redis")
    options = parser.parse_args()
    passed_on = [f"--scale={options.scale}"]
    if options.pairs:
        passed_on.append(f"--pairs={options.pairs}")
    if options.no_collector:
        passed_on.append("--no-collector")
    runs = [run for run in RUNS if run.name in options.names or not options.names]
    if binary(options.server_version) is None and not options.names:
        print(f"left out: {', '.join(REDIS)}: Redis {options.server_version} is not here; make servers")
        runs = [run for run in runs if run.module not in REDIS]
    if find("kafka") is None and not options.names:
        print(f"left out: {', '.join(KAFKA)}: Kafka, or java, is not here; make servers")
        runs = [run for run in runs if run.module not in KAFKA]
    place = [f"--directory={options.directory}"] if options.directory else []
    server = [f"--server-version={options.server_version}"]
    own = {**dict.fromkeys(DURABLE + KAFKA, place), **dict.fromkeys(REDIS, place + server)}
    records = {run.name: _executed(run, passed_on + own.get(run.module, [])) for run in runs}
    targets = [
        target for run in runs if run.judged for result in records[run.name]["results"] for target in result["targets"]
    ]
    print("\n=== targets\n" + render_targets(targets))
    numbers = options.json or RESULTS / "latest.json"
    numbers.write_text(json.dumps(records, indent=1) + "\n")
    print(f"\nThe numbers: {numbers}")


if __name__ == "__main__":
    main()
