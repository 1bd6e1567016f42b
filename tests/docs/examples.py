"""Runs the Python blocks of a page, in order and in one namespace, as its reader would type them.

A block may await at its top level. What it prints must equal its comments that begin with ``# >``, line by line; a
block that prints without them fails.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import io
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

__all__ = ["Block", "blocks", "run_page"]

FENCE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
EXPECTED = re.compile(r"^\s*# > ?(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    source: str
    line: int

    @property
    def expected(self) -> list[str]:
        return [text.rstrip() for text in EXPECTED.findall(self.source)]


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(match[1], text.count("\n", 0, match.start(1)) + 1) for match in FENCE.finditer(text)]


def run_page(page: Path, swaps: Mapping[str, str] = MappingProxyType({})) -> None:
    """Raises AssertionError where output differs, and whatever a block raises, with the page's line numbers.

    ``swaps``: what is written otherwise here, such as a server's port.
    """
    module = types.ModuleType(f"docs_{page.stem.replace('-', '_')}")
    loop = asyncio.new_event_loop()
    try:
        for block in blocks(page):
            printed = _run(_swapped(block, swaps), page, module.__dict__, loop)
            assert printed == block.expected, f"{page}:{block.line}: printed {printed}, the page says {block.expected}"
    finally:
        loop.close()


def _swapped(block: Block, swaps: Mapping[str, str]) -> Block:
    source = block.source
    for text, other in swaps.items():
        source = source.replace(text, other)
    return Block(source, block.line)


def _run(block: Block, page: Path, namespace: dict[str, Any], loop: asyncio.AbstractEventLoop) -> list[str]:
    source = "\n" * (block.line - 1) + block.source
    code = compile(source, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        result = eval(code, namespace)
        if asyncio.iscoroutine(result):
            loop.run_until_complete(result)
    return [line.rstrip() for line in output.getvalue().splitlines()]
