import contextvars
import dataclasses
import functools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Annotated, Any, TypedDict
from unittest.mock import AsyncMock

import msgspec
import numpy as np
import numpy.typing as npt
import pydantic
import pytest

from neuralcore._core import Clock, Mailbox, Message
from neuralcore.messaging.errors import BadHandler, DecodeError
from neuralcore.messaging.handler import SKIPPED, Compiled, compile_handler


class Order(msgspec.Struct):
    id: int


@dataclasses.dataclass
class Point:
    x: int


class Model(pydantic.BaseModel):
    id: int


class Row(TypedDict):
    id: int


class Plain:
    """A class that no codec knows."""


def message(payload: Any = None, content_type: str | None = None) -> Message:
    return Message("orders", payload, id="00" * 16, content_type=content_type)


class Pool:
    """Stands for the thread pool, and says what went through it."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    async def __call__(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        self.calls.append((fn, args))
        return fn(*args)


def compiled(fn: Callable[..., Any], pool: Pool | None = None, **options: Any) -> Compiled:
    return compile_handler(fn, run_blocking=pool or Pool(), **options)


async def outcome(fn: Callable[..., Any], what: Any, **options: Any) -> Any:
    result = compiled(fn, **options).call(what)
    return await result if isinstance(result, Awaitable) else result


class Settlements:
    """A settler that writes down what the handlers' verbs ask for."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any, Any]] = []

    async def ack(self, message: Message, /) -> None:
        self.seen.append(("ack", message.payload, None))

    async def nack(self, message: Message, delay: float | None, /) -> None:
        self.seen.append(("nack", message.payload, delay))

    async def reject(self, message: Message, reason: str, /) -> None:
        self.seen.append(("reject", message.payload, reason))

    async def release(self, message: Message, /) -> None:
        self.seen.append(("release", message.payload, None))

    async def reply(self, message: Message, payload: Any, /) -> None:
        self.seen.append(("reply", message.payload, payload))

    def due(self, mailbox: Mailbox, monotonic_ns: int, /) -> None: ...
    def expired(self, message: Message, /) -> None: ...


def deliveries(*payloads: Any) -> tuple[list[Message], Settlements]:
    """Messages as a pump hands them over, and what becomes of them."""
    settlements = Settlements()
    mailbox = Mailbox(Clock(), settlements, capacity=100)
    for payload in payloads:
        mailbox.offer(message(payload))
    taken = [mailbox.take() for _ in payloads]
    assert all(taken)
    return taken, settlements  # type: ignore[return-value]


# --- the fast path ---------------------------------------------------------------------------------------------------


async def unannotated(message): ...
async def annotated(message: Message) -> None: ...
async def by_string(message: "Message") -> None: ...
async def optional(message: Message | None) -> None: ...
async def decorated(message: Annotated[Message, "note"]) -> None: ...
async def with_default(message: Message, verbose: bool = False) -> None: ...
async def unresolvable_return(message: Message) -> "Missing": ...  # type: ignore[name-defined]  # noqa: F821
async def variadic(*args): ...


@pytest.mark.parametrize(
    "fn", [unannotated, annotated, by_string, optional, decorated, with_default, unresolvable_return, variadic]
)
def test_a_handler_of_messages_compiles_to_itself(fn: Callable[..., Any]) -> None:
    handler = compiled(fn)
    assert handler.call is fn
    assert (handler.kind, handler.wants, handler.type) == ("coroutine", "message", Any)
    assert handler.name == f"{__name__}.{fn.__name__}"


async def messages(batch: list[Message]) -> None: ...
async def bare_list(batch: list) -> None: ...
async def sequence(batch: Sequence[Message]) -> None: ...


@pytest.mark.parametrize("fn", [unannotated, messages, bare_list, sequence])
def test_a_batch_handler_of_messages_compiles_to_itself(fn: Callable[..., Any]) -> None:
    handler = compiled(fn, batch=10)
    assert handler.call is fn
    assert handler.wants == "message"


def plain(message): ...


def test_a_plain_function_declared_harmless_compiles_to_itself() -> None:
    handler = compiled(plain, blocking=False)
    assert handler.call is plain
    assert handler.kind == "direct"


class Service:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def method(self, order: Order) -> int:
        self.seen.append(order)
        return order.id

    async def __call__(self, order: Order) -> int:
        return await self.method(order)

    @staticmethod
    async def static(message: Message) -> None: ...

    @classmethod
    async def klass(cls, message: Message) -> None: ...


def traced(fn):
    @functools.wraps(fn)
    async def wrapper(*args, **kwargs):
        return ("traced", await fn(*args, **kwargs))

    return wrapper


def quiet(fn):
    @functools.wraps(fn)
    def wrapper(*args, **kwargs):
        return fn(*args, **kwargs)

    return wrapper


async def typed(order: Order) -> int:
    return order.id


async def configured(factor: int, order: Order) -> int:
    return factor * order.id


@pytest.mark.parametrize(
    ("fn", "result", "name"),
    [
        (typed, 7, "typed"),
        (Service().method, 7, "Service.method"),
        (Service(), 7, "Service"),
        (traced(typed), ("traced", 7), "typed"),
        (quiet(typed), 7, "typed"),
        (functools.partial(configured, 3), 21, "configured"),
        (functools.partial(Service().method), 7, "Service.method"),
        (quiet(functools.partial(configured, 3)), 21, "configured"),
    ],
)
async def test_every_form_of_coroutine_function(fn: Callable[..., Any], result: Any, name: str) -> None:
    handler = compiled(fn)
    assert (handler.kind, handler.wants, handler.type) == ("coroutine", "payload", Order)
    assert handler.name == f"{__name__}.{name}"
    assert await handler.call(message({"id": 7})) == result


def test_static_and_class_methods_are_handlers() -> None:
    assert compiled(Service.static).wants == "message"
    assert compiled(Service.klass).wants == "message"


async def test_a_mock_is_a_handler() -> None:
    mock = AsyncMock(return_value=5)
    handler = compiled(mock)
    assert handler.kind == "coroutine"
    given = message()
    assert await handler.call(given) == 5
    mock.assert_awaited_once_with(given)


async def test_a_local_type_is_resolved_through_the_closure() -> None:
    class Local(msgspec.Struct):
        id: int

    async def handle(local: "Local") -> Any:
        return Local, local

    assert (await outcome(handle, message({"id": 1})))[1] == Local(1)


async def test_a_closure_over_a_name_not_assigned_yet_is_no_obstacle() -> None:
    async def handle(order: "Order") -> Any:
        return later, order

    handler = compiled(handle)
    later = 5
    assert await handler.call(message({"id": 1})) == (later, Order(1))


# --- payloads --------------------------------------------------------------------------------------------------------


def taking(annotation: Any) -> Callable[..., Any]:
    async def identity(payload: Any) -> Any:
        return payload

    identity.__annotations__["payload"] = annotation
    return identity


@pytest.mark.parametrize(
    ("annotation", "payload", "content_type", "expected"),
    [
        (Order, {"id": 1}, None, Order(1)),
        (Point, {"x": 1}, None, Point(1)),
        (Model, {"id": 1}, None, Model(id=1)),
        (list[Order], [{"id": 1}], None, [Order(1)]),
        (dict[str, list[int]], {"a": (1, 2)}, None, {"a": [1, 2]}),
        (Order | None, None, None, None),
        (Order | None, {"id": 1}, None, Order(1)),
        (Row, {"id": 1}, None, {"id": 1}),
        (float, 1, None, 1.0),
        (Annotated[int, msgspec.Meta(gt=0)], 1, None, 1),
        (Order, b'{"id": 1}', "application/json", Order(1)),
        (Model, b'{"id": "1"}', "application/json", Model(id=1)),
        (list[Order], b"\x91\x81\xa2id\x01", "application/msgpack", [Order(1)]),
        (str, b"abc", "text/plain", "abc"),
        (bytes, b'{"id": 1}', "application/json", b'{"id": 1}'),
        (dict, b'{"id": 1}', "application/json", {"id": 1}),
        (Order, Model(id=1), None, Order(1)),
        (bytes, bytearray(b"x"), None, b"x"),
    ],
    ids=repr,
)
async def test_a_payload_becomes_what_the_annotation_says(annotation, payload, content_type, expected) -> None:
    result = await outcome(taking(annotation), message(payload, content_type))
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "payload"),
    [
        (Order, Order(1)),
        (Point, Point(1)),
        (Model, Model(id=1)),
        (Plain, Plain()),
        (dict, {"a": object()}),
        (Plain | None, Plain()),
        (Order | None, Order(1)),
        (Any, object()),
        (object, object()),
        (np.ndarray, np.arange(3)),
        (npt.NDArray[np.int64], np.arange(3)),
        (memoryview, memoryview(b"x")),
    ],
    ids=repr,
)
async def test_an_instance_is_handed_over_by_reference(annotation: Any, payload: Any) -> None:
    assert await outcome(taking(annotation), message(payload)) is payload


@pytest.mark.parametrize(
    ("annotation", "payload", "content_type"),
    [
        (Order, {"id": "x"}, None),
        (Order, 5, None),
        (int, True, None),
        (int, "1", None),
        (Model, {"id": "x"}, None),
        (Plain, {"id": 1}, None),
        (Order, b"raw", None),
        (Order, b"{", "application/json"),
        (Annotated[int, msgspec.Meta(gt=0)], 0, None),
        (list[Order], [{"id": 1}, {}], None),
    ],
    ids=repr,
)
def test_what_does_not_fit_raises_before_the_handler_runs(
    annotation: Any, payload: Any, content_type: str | None
) -> None:
    handler = compiled(taking(annotation))
    with pytest.raises(DecodeError):
        handler.call(message(payload, content_type))


async def test_payload_and_message() -> None:
    async def handle(order: Order, message: Message) -> Any:
        return order, message

    handler = compiled(handle)
    assert handler.wants == "both"
    given = message({"id": 1})
    assert await handler.call(given) == (Order(1), given)


async def test_further_parameters_keep_their_defaults() -> None:
    async def handle(order: Order, message: Message | None = None, retries: int = 3, *, verbose: bool = True) -> Any:
        return order, message, retries, verbose

    given = message({"id": 1})
    assert await outcome(handle, given) == (Order(1), given, 3, True)


# --- plain functions -------------------------------------------------------------------------------------------------


async def test_a_plain_function_runs_in_the_pool() -> None:
    def handle(order: Order) -> int:
        return order.id

    pool = Pool()
    handler = compiled(handle, pool)
    assert handler.kind == "blocking"
    assert await handler.call(message({"id": 7})) == 7
    assert pool.calls == [(handle, (Order(7),))]


async def test_a_plain_function_gets_the_message_too() -> None:
    def handle(order: Order, message: Message) -> Any:
        return order, message

    given = message({"id": 7})
    assert await outcome(handle, given) == (Order(7), given)


async def test_a_coroutine_made_by_a_plain_function_is_awaited_on_the_loop() -> None:
    variable = contextvars.ContextVar("variable", default=0)

    async def work(message: Message) -> int:
        variable.set(1)
        return variable.get()

    def start(message: Message) -> Awaitable[int]:
        return work(message)

    assert await outcome(start, message()) == 1


async def test_a_builtin_method_is_a_handler() -> None:
    received: list[Message] = []
    handler = compiled(received.append)
    assert (handler.kind, handler.wants, handler.name) == ("blocking", "message", "list.append")
    given = message()
    await handler.call(given)
    assert received == [given]


def test_a_direct_function_of_payloads_answers_at_once() -> None:
    def handle(order: Order) -> int:
        return order.id

    assert compiled(handle, blocking=False).call(message({"id": 7})) == 7


def test_a_coroutine_function_may_be_declared_harmless_but_not_blocking() -> None:
    assert compiled(typed, blocking=False).kind == "coroutine"
    with pytest.raises(BadHandler, match="blocking=True is for plain functions"):
        compiled(typed, blocking=True)


# --- filters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", [False, None, 0, ""])
async def test_what_the_filter_refuses_is_skipped(refusal: object) -> None:
    async def handle(message: Message) -> Any:
        raise AssertionError("handled")

    seen = []

    def accepts(message: Message) -> object:
        seen.append(message)
        return refusal

    given = message()
    assert compiled(handle, filter=accepts).call(given) is SKIPPED
    assert seen == [given]


async def test_what_the_filter_accepts_is_handled() -> None:
    assert await outcome(typed, message({"id": 7}), filter=lambda message: message.payload["id"] == 7) == 7


async def test_the_filter_sees_the_message_before_it_is_decoded() -> None:
    assert compiled(typed, filter=lambda message: False).call(message("not an order")) is SKIPPED


def test_an_error_of_the_filter_is_the_attempts_error() -> None:
    handler = compiled(typed, filter=lambda message: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        handler.call(message())


async def slow_filter(message: Message) -> bool: ...


class SlowFilter:
    async def __call__(self, message: Message) -> bool: ...


@pytest.mark.parametrize(
    ("accepts", "reason"),
    [(slow_filter, "a coroutine function"), (SlowFilter(), "a coroutine function"), ("odd", "not callable")],
)
def test_a_bad_filter(accepts: Any, reason: str) -> None:
    with pytest.raises(BadHandler, match=reason):
        compiled(typed, filter=accepts)


# --- batches ---------------------------------------------------------------------------------------------------------


async def test_a_batch_of_payloads() -> None:
    async def handle(orders: list[Order]) -> Any:
        return orders

    handler = compiled(handle, batch=10)
    assert (handler.wants, handler.type) == ("payload", Order)
    given, settlements = deliveries({"id": 1}, Order(2))
    assert await handler.call(given) == [Order(1), Order(2)]
    assert settlements.seen == []


async def test_a_batch_of_payloads_and_messages() -> None:
    async def handle(orders: Iterable[Order], messages: list[Message]) -> Any:
        return orders, messages

    given, _ = deliveries({"id": 1}, {"id": 2})
    assert await outcome(handle, given, batch=10) == ([Order(1), Order(2)], given)


async def test_an_undecodable_message_fails_alone_in_its_batch() -> None:
    async def handle(orders: list[Order], messages: list[Message]) -> Any:
        return orders, messages

    given, settlements = deliveries({"id": 1}, {"id": "x"}, {"id": 3})
    assert await outcome(handle, given, batch=10) == ([Order(1), Order(3)], [given[0], given[2]])
    ((verb, payload, reason),) = settlements.seen
    assert (verb, payload) == ("reject", {"id": "x"})
    assert "Expected `int`" in reason


async def test_who_compiles_may_settle_the_undecodable() -> None:
    bad: list[tuple[Message, Exception]] = []

    async def handle(orders: list[Order]) -> Any:
        raise AssertionError("handled")

    def failed(message: Message, error: Exception) -> None:
        bad.append((message, error))

    given, settlements = deliveries({"id": "x"})
    assert await outcome(handle, given, batch=10, failed=failed) is None
    assert [(message, type(error)) for message, error in bad] == [(given[0], DecodeError)]
    assert settlements.seen == []


async def test_what_the_filter_refuses_of_a_batch_is_acked() -> None:
    async def handle(orders: list[Order]) -> Any:
        return orders

    def odd(message: Message) -> bool:
        return bool(message.payload["id"] % 2)

    given, settlements = deliveries({"id": 1}, {"id": 2}, {"id": 3})
    assert await outcome(handle, given, batch=10, filter=odd) == [Order(1), Order(3)]
    assert settlements.seen == [("ack", {"id": 2}, None)]


async def test_a_batch_that_the_filter_refuses_whole_is_skipped() -> None:
    async def handle(messages: list[Message]) -> Any:
        raise AssertionError("handled")

    given, settlements = deliveries(1, 2)
    assert await outcome(handle, given, batch=10, filter=lambda message: False) is SKIPPED
    assert settlements.seen == [("ack", 1, None), ("ack", 2, None)]


async def test_a_plain_batch_function_runs_in_the_pool_once() -> None:
    def handle(orders: list[Order]) -> int:
        return sum(order.id for order in orders)

    pool = Pool()
    given, _ = deliveries({"id": 1}, {"id": 2})
    assert await compiled(handle, pool, batch=10).call(given) == 3
    assert pool.calls == [(handle, ([Order(1), Order(2)],))]
