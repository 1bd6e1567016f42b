"""A disk that takes longer to sync, for this program and what it starts: the difference that hardware makes most."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["sync_more", "syncing_slower"]

_MORE = "SLOW_SYNC_US"


def sync_more() -> int:
    """Microseconds by which every sync takes longer in this process."""
    return int(os.environ.get(_MORE, "0"))


def syncing_slower(microseconds: int) -> None:
    """Run this program again, each of its syncs taking so much longer, and exit as it does. In that run, nothing."""
    if microseconds == sync_more():
        return
    compiler = shutil.which("cc") or shutil.which("gcc")
    if microseconds < 0 or compiler is None or not sys.platform.startswith("linux"):
        raise SystemExit("--slow-sync: from 0 up, on Linux, with a C compiler: apt-get install gcc libc6-dev")
    with tempfile.TemporaryDirectory() as made:
        library = Path(made) / "slow_disk.so"
        source = Path(__file__).with_name("slow_disk.c")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        loaded = " ".join([str(library), *os.environ.get("LD_PRELOAD", "").split()])
        environment = {**os.environ, _MORE: str(microseconds), "LD_PRELOAD": loaded}
        raise SystemExit(subprocess.call([sys.executable, *sys.orig_argv[1:]], env=environment))
