"""Small C libraries for LD_PRELOAD, compiled when they are first wanted."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["NoCompiler", "available", "library", "preloaded"]

FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")


class NoCompiler(RuntimeError):
    """The shims are C. Skip with this text, or install a compiler."""

    def __init__(self) -> None:
        super().__init__("no gcc or cc on the PATH to compile the fault shims: apt-get install gcc libc6-dev")


def _compiler() -> str | None:
    return shutil.which("gcc") or shutil.which("cc")


def available() -> bool:
    return _compiler() is not None


def library(name: str) -> Path:
    """The compiled ``<name>.c`` of this folder, kept in a cache folder under its contents' hash."""
    source = Path(__file__).with_name(f"{name}.c")
    digest = hashlib.sha256(source.read_bytes() + repr(FLAGS).encode()).hexdigest()[:16]
    cache = Path(tempfile.gettempdir()) / f"neuralcore-faults-{os.getuid()}"
    built = cache / f"{name}-{digest}.so"
    if not built.exists():
        _compile(source, built)
    return built


def _compile(source: Path, built: Path) -> None:
    compiler = _compiler()
    if compiler is None:
        raise NoCompiler
    built.parent.mkdir(mode=0o700, exist_ok=True)
    if built.parent.stat().st_uid != os.getuid():
        raise PermissionError(f"{built.parent} belongs to somebody else: set TMPDIR")
    half = built.with_suffix(f".{os.getpid()}")
    command = [compiler, *FLAGS, "-o", str(half), str(source), "-ldl", "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr}")
    half.replace(built)


def preloaded(name: str, base: Mapping[str, str] | None, **variables: str) -> dict[str, str]:
    """A copy of ``base`` (by default this process's environment) with the shim added: shims can be stacked."""
    environment = dict(os.environ if base is None else base)
    libraries = [str(library(name)), *environment.get("LD_PRELOAD", "").split()]
    return {**environment, **variables, "LD_PRELOAD": " ".join(libraries)}
