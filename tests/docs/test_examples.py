"""Every Python example of the documentation runs, and prints what it says."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from tests.docs.examples import Block, blocks, run_page

ROOT = Path(__file__).resolve().parents[2]
REDIS, KAFKA = "localhost:6379", "localhost:9092"
PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if blocks(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_examples_of_a_page_run(
    page: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(page.parent)
    swaps = {}
    if any(REDIS in block.source for block in blocks(page)):
        swaps[REDIS] = request.getfixturevalue("redis_server").url().removeprefix("redis://")
    if any(KAFKA in block.source for block in blocks(page)):
        swaps[KAFKA] = request.getfixturevalue("kafka_broker").bootstrap
    with warnings.catch_warnings():
        run_page(page, swaps)


def test_the_pages_a_newcomer_reads_have_examples() -> None:
    names = {page.relative_to(ROOT).as_posix() for page in PAGES}
    assert names >= {"README.md", "docs/quick-start.md", "docs/concepts.md", "docs/testing.md"}


def test_the_runner_notices_output_that_differs(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nprint('one')\n# > two\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="printed \\['one'\\], the page says \\['two'\\]"):
        run_page(page)


def test_the_runner_notices_output_that_the_page_does_not_show(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nprint('one')\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="the page says \\[\\]"):
        run_page(page)


def test_blocks_know_their_lines(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n\n```python\nx = 1\n```\n", encoding="utf-8")
    assert blocks(page) == [Block("x = 1\n", 4)]
