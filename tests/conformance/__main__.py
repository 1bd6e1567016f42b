"""Run the suite on every set-up and write the table: ``python -m tests.conformance [SETUP …] [--only EXPRESSION]``.

``--only order.fifo`` (as pytest's ``-k``) runs a part again, and leaves the rest of the column as it is.
``--page`` runs nothing, and writes the page again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.conformance.page import page, terminal
from tests.conformance.records import Column, Records, gaps, load, merged, save
from tests.conformance.setups import Setup, chosen

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "docs" / "conformance.json"
PAGE = ROOT / "docs" / "conformance.md"


def prove(setup: Setup, only: str) -> Column:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        plugin = ["-p", "neuralcore.testing.conformance.plugin", f"--conformance-report={report}"]
        command = [sys.executable, "-m", "pytest", "-q", *plugin, setup.test, *(["-k", only] if only else [])]
        environment = {**os.environ, "NEURALCORE_CONFORMANCE": "long", "NEURALCORE_NATIVE": setup.native}
        subprocess.run(command, cwd=ROOT, env=environment, check=False)
        return load(report).get(setup.name, Column())


def publish(records: Records) -> None:
    save(RECORDS, records)
    PAGE.write_text(page(records), encoding="utf-8")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance")
    parser.add_argument("setups", nargs="*", metavar="SETUP")
    parser.add_argument("--only", default="", metavar="EXPRESSION")
    parser.add_argument("--page", action="store_true")
    asked = parser.parse_args(arguments)
    try:
        setups = chosen(asked.setups)
    except LookupError as error:
        parser.error(str(error.args[0]))
    records = load(RECORDS)
    for setup in [] if asked.page else setups:
        print(f"\n=== {setup.title}", flush=True)
        began = time.monotonic()
        now = prove(setup, asked.only)
        print(f"=== {setup.title}: {time.monotonic() - began:.0f} s", flush=True)
        records[setup.name] = merged(records.get(setup.name, Column()), now) if asked.only else now
        publish(records)
    publish(records)
    print(terminal(records, setups))
    return int(bool(gaps(records, setups)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
