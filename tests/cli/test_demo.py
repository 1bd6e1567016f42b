"""The demo's story, in virtual time: its sums add up, and it notices when they do not."""

from __future__ import annotations

import asyncio

import pytest

from neuralcore.cli.demo import text
from neuralcore.cli.demo.command import document
from neuralcore.cli.demo.story import Outcome, Story
from neuralcore.cli.demo.team import Summary, Team
from neuralcore.cli.demo.text import TORN, Page, pages, passages
from neuralcore.messaging import Message
from neuralcore.testing import run
from neuralcore.testing.bus import bus_in

SENTENCES = "Every message is settled after its handler returned. A key keeps the order of its messages. "
TEXTS = [Page("guide", SENTENCES * 60), Page(TORN, "\N{REPLACEMENT CHARACTER}"), Page("manual", SENTENCES * 40)]


def play(told: list[tuple[str, str]] | None = None, *, seed: int | None = None) -> tuple[Story, Outcome]:
    async def main() -> tuple[Story, Outcome]:
        heard = [] if told is None else told
        loop = asyncio.get_running_loop()
        story = Story(seconds=6.0, tell=lambda *event: heard.append(event), texts=TEXTS, bus=bus_in(loop))
        return story, await story.run()

    return run(main(), seed=seed)


def failed(outcome: Outcome) -> list[str]:
    return [check.name for check in outcome.checks if not check.ok]


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_all_sums_add_up(seed: int | None) -> None:
    story, outcome = play(seed=seed)
    assert failed(outcome) == []
    assert outcome.ok
    assert story.total == sum(len(passages(page)) for page in TEXTS if page.title != TORN) > 20


def test_it_tells_of_every_kind_of_event() -> None:
    told: list[tuple[str, str]] = []
    play(told)
    assert {kind for kind, _ in told} == {"summary", "retry", "urgent", "dead"}


def test_the_document_has_every_channel_and_check() -> None:
    story, outcome = play()
    found = document(story, outcome)
    assert found["ok"] is True
    assert found["dead_letters"] == 1
    assert found["channels"]["text.summary"]["handled"] == story.total + 1
    assert found["channels"]["text.scored"]["wait_p99"] > 0
    assert len(found["checks"]) == len(outcome.checks)


def test_a_summary_archived_twice_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    archivist = Team.archivist

    async def twice(self: Team, summary: Summary, message: Message) -> None:
        await archivist(self, summary, message)
        if len(self.digest) == 5:
            self.digest.append(summary)

    monkeypatch.setattr(Team, "archivist", twice)
    _, outcome = play()
    assert "none of them twice" in failed(outcome)
    assert not outcome.ok


def test_a_lost_summary_is_noticed_and_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    archivist = Team.archivist

    async def forgetful(self: Team, summary: Summary, message: Message) -> None:
        if summary.number != 7:
            await archivist(self, summary, message)

    monkeypatch.setattr(Team, "archivist", forgetful)
    _, outcome = play()
    assert "every passage, and the question, was summarised and archived" in failed(outcome)


def test_cancelled_it_closes_the_bus() -> None:
    async def main() -> Story:
        loop = asyncio.get_running_loop()
        story = Story(seconds=6.0, tell=lambda kind, line: None, texts=TEXTS, bus=bus_in(loop))
        playing = asyncio.create_task(story.run())
        await asyncio.sleep(2.0)
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing
        return story

    story = run(main())
    assert 0 < len(story.team.digest) < story.total


def test_the_documentation_and_the_docstrings_are_read() -> None:
    found = pages()
    titles = {page.title for page in found}
    assert {TORN, "concepts", "messaging/bus"} <= titles
    assert sum(len(passages(page)) for page in found) > 50


def test_from_a_wheel_the_docstrings_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_documents", lambda folder: iter(()))
    found = pages()
    titles = {page.title for page in found}
    assert {TORN, "messaging/bus"} <= titles
    assert "concepts" not in titles
    assert sum(len(passages(page)) for page in found) > 50
