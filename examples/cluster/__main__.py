"""``python -m examples.cluster redis|kafka``, as root: the story, a table, and whether everything is as promised."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from examples.cluster.judge import Verdict
from examples.cluster.network import NetworkError
from examples.cluster.story import Cluster, tell
from tests.servers.missing import find

__all__ = ["main", "missing"]

NEEDS = {"redis": ("redis-7.0", "setpriv"), "kafka": ("kafka", "setpriv")}


def main() -> int:
    options = _options()
    lacking = missing(options.kind)
    if lacking:
        print(f"not found: {', '.join(lacking)}; make servers gets it", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="cluster-"))
    try:
        good = _play(options, folder)
    except NetworkError as error:
        print(error, file=sys.stderr)
        shutil.rmtree(folder)
        return 2
    except KeyboardInterrupt:
        shutil.rmtree(folder)
        return 128 + signal.SIGINT
    except RuntimeError as error:
        print(f"FAILED  {error}")
        good = False
    if good and not options.keep:
        shutil.rmtree(folder)
    else:
        print(f"what the processes wrote and said is in {folder}")
    return 0 if good else 1


def missing(kind: str) -> list[str]:
    """What `make servers` would bring."""
    return [name for name in NEEDS[kind] if find(name) is None]


def _play(options: argparse.Namespace, folder: Path) -> bool:
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    with Cluster(options.kind, folder, lease=options.lease, say=say) as cluster:
        acts = tell(cluster, seconds=options.seconds)
        verdict = Verdict(cluster.evidence, acts, lease=options.lease)
    checks = verdict.checks()
    print("", verdict.table(), "", *(check.line() for check in checks), sep="\n")
    return all(check.met for check in checks)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.cluster", description=__doc__)
    parser.add_argument("kind", choices=sorted(NEEDS))
    parser.add_argument("--seconds", type=float, default=5.0, help="of load between the steps (5)")
    parser.add_argument("--lease", type=float, default=3.0, help="seconds until a dead host's messages are free (3)")
    parser.add_argument("--keep", action="store_true", help="keep the files of evidence and the processes' logs")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
