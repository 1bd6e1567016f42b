"""What a handler may not look like, and what it is told."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from neuralcore._core import Message
from neuralcore.messaging.errors import BadHandler
from neuralcore.messaging.signature import read_signature


class Order(msgspec.Struct):
    id: int


class Other(msgspec.Struct):
    id: int


async def nothing(): ...
async def only_keywords(*, message): ...
async def required_keyword(message, *, verbose): ...
async def three(order: Order, message: Message, more): ...
async def two_payloads(order: Order, other: Other): ...
async def two_unannotated(message, other): ...
async def twice(message: Message, again: Message): ...
async def unresolvable(order: "Missing"): ...  # type: ignore[name-defined]  # noqa: F821
async def syntax(order: "1 +"): ...  # type: ignore[syntax]  # noqa: F722
async def ambiguous(order: Order | Other): ...
async def mixed(order: Order | Message): ...
async def generator(message):
    yield message


def plain_generator(message):
    yield message


async def list_of_messages(batch: list[Message]): ...


class NoParameter:
    async def method(self): ...
    async def generator(self, message):
        yield message


@pytest.mark.parametrize(
    ("fn", "reason"),
    [
        (5, "it is 5, which cannot be called"),
        (None, "it is None, which cannot be called"),
        (Order, "it is a class"),
        (nothing, "it takes no parameter"),
        (only_keywords, "it requires the keyword 'message'"),
        (required_keyword, "it requires the keyword 'verbose'"),
        (three, "it requires 'more' beside"),
        (two_payloads, "it requires 'other' beside"),
        (two_unannotated, "it requires 'other' beside"),
        (twice, "it takes the message twice"),
        (unresolvable, "the annotation 'Missing' of 'order' cannot be resolved"),
        (syntax, "the annotation '1 \\+' of 'order' cannot be resolved"),
        (ambiguous, "no payload can be decoded as .*Order.*Other: .* must be tagged"),
        (generator, "it is a generator function"),
        (plain_generator, "it is a generator function"),
        (NoParameter().method, "it takes no parameter"),
        (NoParameter().generator, "it is a generator function"),
        (functools.partial(generator), "it is a generator function"),
        (functools.partial(two_payloads, other=Other(1)), None),
        (functools.partial(nothing), "it takes no parameter"),
        (list_of_messages, "subscribe it with batch="),
    ],
)
def test_bad_signatures(fn: Callable[..., Any], reason: str | None) -> None:
    if reason is None:
        assert read_signature(fn, batch=False).type is Order
        return
    with pytest.raises(BadHandler, match=reason) as caught:
        read_signature(fn, batch=False)
    assert isinstance(caught.value, TypeError)
    assert caught.value.handler is not None
    assert caught.value.handler in str(caught.value)


async def one_message(message: Message): ...
async def one_order(order: Order): ...
async def mapping(orders: dict[str, Order]): ...
async def list_and_one(orders: list[Order], message: Message): ...
async def list_and_list(orders: list[Order], messages: list[Message]): ...


@pytest.mark.parametrize(
    ("fn", "reason"),
    [
        (one_message, "batch= hands it a list, but it wants Message"),
        (one_order, "batch= hands it a list, but it wants Order"),
        (mapping, r"batch= hands it a list, but it wants dict\[str, "),
        (list_and_one, "batch= hands it lists, but 'message' wants one Message"),
        (nothing, "it takes no parameter"),
    ],
)
def test_bad_signatures_for_batches(fn: Callable[..., Any], reason: str) -> None:
    with pytest.raises(BadHandler, match=reason):
        read_signature(fn, batch=True)


def test_a_batch_may_be_given_with_its_messages() -> None:
    assert read_signature(list_and_list, batch=True).wants == "both"


def test_the_name_says_where_the_handler_is() -> None:
    with pytest.raises(BadHandler) as caught:
        read_signature(nothing, batch=False)
    assert caught.value.handler == f"{__name__}.nothing"
    assert str(caught.value).startswith(f"{__name__}.nothing cannot be a handler: ")


def test_a_function_that_hides_its_signature_takes_one_message() -> None:
    with pytest.raises(ValueError, match="signature"):
        inspect.signature(min)
    signature = read_signature(min, batch=False)
    assert (signature.wants, signature.name) == ("message", "min")
