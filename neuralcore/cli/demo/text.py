"""What the team reads: the docstrings of this package, and where its repository is at hand the documentation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

__all__ = ["TORN", "Page", "Passage", "pages", "passages", "words"]

PASSAGE_WORDS = 60
PAGES = 40
TORN = "a torn page"
PACKAGE = Path(__file__).resolve().parents[2]


class Page(msgspec.Struct, frozen=True):
    title: str
    text: str


class Passage(msgspec.Struct, frozen=True):
    page: str
    number: int
    text: str


def pages() -> list[Page]:
    """The longest ones, and one that nobody can read."""
    found = [*_documents(PACKAGE.parent / "docs"), *_docstrings(PACKAGE)]
    longest = sorted(found, key=lambda page: len(page.text), reverse=True)[:PAGES]
    middle = len(longest) // 2
    return [*longest[:middle], Page(TORN, "\N{REPLACEMENT CHARACTER}" * 40), *longest[middle:]]


def passages(page: Page) -> list[Passage]:
    """Pieces of some sixty words."""
    tokens = page.text.split()
    pieces = (tokens[start : start + PASSAGE_WORDS] for start in range(0, len(tokens), PASSAGE_WORDS))
    return [Passage(page.title, number, " ".join(piece)) for number, piece in enumerate(pieces, 1)]


def words(text: str) -> list[str]:
    """Those that say something."""
    return re.findall(r"[a-z]{4,}", text.lower())


def _documents(folder: Path) -> Iterator[Page]:
    for path in sorted(folder.rglob("*.md")):
        text = re.sub(r"```.*?```|^[#|].*?$", " ", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        if words(text):
            yield Page(path.relative_to(folder).with_suffix("").as_posix(), text)


def _docstrings(package: Path) -> Iterator[Page]:
    for path in sorted(package.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        texts = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, documented)]
        text = "\n".join(filter(None, texts))
        if words(text):
            yield Page(path.relative_to(package).with_suffix("").as_posix(), text)
