import dataclasses
from typing import Any

import pytest

from neuralcore._core import Message
from neuralcore.messaging.middleware import (
    Middleware,
    Publication,
    compose_batch,
    compose_handle,
    compose_publish,
)


class Recorder(Middleware):
    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    async def publish(self, publication: Publication, proceed: Any) -> str | None:
        self.log.append(f"{self.name} in")
        result = await proceed(publication.with_headers(**{self.name: "seen"}))
        self.log.append(f"{self.name} out")
        return result

    async def handle(self, message: Message, proceed: Any) -> Any:
        self.log.append(f"{self.name} in")
        result = await proceed(message)
        self.log.append(f"{self.name} out")
        return result

    async def handle_batch(self, messages: list[Message], proceed: Any) -> Any:
        self.log.append(f"{self.name} {len(messages)}")
        return await proceed(messages)


async def test_the_first_one_is_the_outermost_around_a_publish() -> None:
    log: list[str] = []
    published: list[Publication] = []

    async def final(publication: Publication) -> str:
        log.append("final")
        published.append(publication)
        return "id"

    path = compose_publish([Recorder("a", log), Recorder("b", log)], final)
    assert await path(Publication("orders", 1)) == "id"
    assert log == ["a in", "b in", "final", "b out", "a out"]
    assert published == [Publication("orders", 1, headers={"a": "seen", "b": "seen"})]


async def test_the_first_one_is_the_outermost_around_a_handler() -> None:
    log: list[str] = []

    async def final(message: Message) -> Any:
        log.append("final")
        return message.payload

    path = compose_handle([Recorder("a", log), Recorder("b", log)], final)
    assert await path(Message("orders", 5, id="00" * 16)) == 5
    assert log == ["a in", "b in", "final", "b out", "a out"]


async def test_batches_have_a_method_of_their_own() -> None:
    log: list[str] = []

    async def final(messages: list[Message]) -> Any:
        return len(messages)

    path = compose_batch([Recorder("a", log), Recorder("b", log)], final)
    assert await path([Message("orders", 5, id="00" * 16)] * 3) == 3
    assert log == ["a 3", "b 3"]


class OnlyHandles(Middleware):
    async def handle(self, message: Message, proceed: Any) -> Any:
        return await proceed(message)


def test_what_is_not_overridden_costs_nothing() -> None:
    async def final(what: Any) -> Any: ...

    assert compose_publish([], final) is final
    assert compose_publish([OnlyHandles(), Middleware()], final) is final
    assert compose_batch([OnlyHandles()], final) is final
    assert compose_handle([OnlyHandles()], final) is not final


async def test_not_proceeding_drops_the_publish() -> None:
    class Drop(Middleware):
        async def publish(self, publication: Publication, proceed: Any) -> str | None:
            return None

    async def final(publication: Publication) -> str:
        raise AssertionError("published")

    assert await compose_publish([Drop()], final)(Publication("orders", 1)) is None


async def test_errors_pass_through_outwards() -> None:
    log: list[str] = []

    async def final(message: Message) -> Any:
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        await compose_handle([Recorder("a", log)], final)(Message("orders", 5, id="00" * 16))
    assert log == ["a in"]


async def test_the_base_class_passes_everything_on() -> None:
    async def proceed(what: Any) -> Any:
        return what

    middleware = Middleware()
    publication, message = Publication("orders", 1), Message("orders", 5, id="00" * 16)
    assert await middleware.publish(publication, proceed) is publication  # type: ignore[comparison-overlap]
    assert await middleware.handle(message, proceed) is message
    assert await middleware.handle_batch([message], proceed) == [message]


def test_options_are_what_was_asked_for() -> None:
    assert Publication("orders", 1).options() == {}
    publication = Publication("orders", 1, priority=0, ttl=0.0, key="k", mandatory=True)
    assert publication.options() == {"priority": 0, "ttl": 0.0, "key": "k", "mandatory": True}


def test_options_cover_every_field_but_channel_and_payload() -> None:
    names = [field.name for field in dataclasses.fields(Publication)]
    full = Publication("c", "p", **dict.fromkeys(names[2:], "x"))  # type: ignore[arg-type]
    assert list(full.options()) == names[2:]


def test_a_copy_with_changes_leaves_the_original() -> None:
    original = Publication("orders", 1, headers={"a": "1"})
    changed = original.replace(channel="other").with_headers(trace_id="7", a="2")
    assert original == Publication("orders", 1, headers={"a": "1"})
    assert changed == Publication("other", 1, headers={"a": "2", "trace-id": "7"})
    original.priority = 3
    assert original.options()["priority"] == 3
