"""Imports point downward only, and the folders of the outer distributions are no packages."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ABOVE = {"transports", "observability", "neuralcore_transports", "neuralcore_observability"}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize(
    ("folder", "banned"),
    [
        ("neuralcore", ABOVE),
        ("transports", ABOVE - {"neuralcore_transports"}),
        ("observability", ABOVE - {"neuralcore_observability"}),
    ],
)
def test_a_layer_imports_nothing_above_it(folder: str, banned: set[str]) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    wrong = {path.relative_to(ROOT).as_posix(): found for path in files if (found := banned & set(imported(path)))}
    assert wrong == {}


def test_only_the_core_surface_module_imports_a_core() -> None:
    """Nothing above chooses between the native core and the fallback, or knows that there are two."""
    package = ROOT / "neuralcore"
    above = [p for p in package.rglob("*.py") if p.name != "_core.py" and (package / "fallback") not in p.parents]
    wrong = [
        path.relative_to(ROOT).as_posix() for path in above if set(runtime_imports(path)) & {"_native", "fallback"}
    ]
    assert wrong == []


def runtime_imports(path: Path) -> Iterator[str]:
    """The modules of this package that are imported outside of ``if TYPE_CHECKING``."""
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "neuralcore":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("neuralcore."):
            yield node.module.split(".")[1]
        pending.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize("folder", ["transports", "observability", "."])
def test_the_folders_are_no_packages(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()
    assert not (ROOT / folder / "conftest.py").exists()
