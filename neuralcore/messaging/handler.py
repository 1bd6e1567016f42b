"""Compiles a user's handler to the one callable that a pump calls.

The signature is looked at once, when subscribing. ``async def handle(message)`` compiles to itself; everything else
to a closure that does exactly what its annotations ask for.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from operator import attrgetter
from typing import Any, Final, Literal

from neuralcore._core import Message
from neuralcore.messaging.codec import convert
from neuralcore.messaging.errors import BadHandler, DecodeError
from neuralcore.messaging.signature import Signature, Wants, is_coroutine_function, read_signature

__all__ = ["SKIPPED", "Compiled", "RunBlocking", "compile_handler"]

RunBlocking = Callable[[Callable[..., Any], tuple[Any, ...]], Awaitable[Any]]
"""Calls a function with these arguments in a thread."""

Accepts = Callable[[Message], Any]
"""A subscription's filter: what it answers falsely to is acked and not handled."""

Failed = Callable[[Message, Exception], Awaitable[None] | None]
"""Settles a message of a batch that its filter or its decoder failed on."""

_Bad = tuple[Message, DecodeError]


class _Skipped(Enum):
    SKIPPED = "skipped"


SKIPPED: Final = _Skipped.SKIPPED
"""What a compiled handler answers when its filter refused: acked, and no reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    call: Callable[[Any], Any]
    """Takes a Message, or with ``batch=`` a list of them; may answer an awaitable."""
    name: str
    kind: Literal["coroutine", "blocking", "direct"]
    """``blocking`` runs in the thread pool, ``direct`` is a plain function on the loop."""
    wants: Wants
    type: Any
    """What payloads are converted to; Any when they are handed over as they are."""


def compile_handler(
    fn: Callable[..., Any],
    *,
    batch: int = 0,
    blocking: bool | None = None,
    filter: Accepts | None = None,
    run_blocking: RunBlocking,
    failed: Failed | None = None,
) -> Compiled:
    """Raises BadHandler.

    A payload that does not fit the annotation raises DecodeError inside the call, and a filter may raise. In a batch
    only that message fails: it goes to ``failed`` (default: it is rejected), and the handler gets the others.
    """
    signature = read_signature(fn, batch=bool(batch))
    kind = _kind(signature, blocking)
    _check_filter(filter, signature.name)
    target = partial(_in_pool, run_blocking, fn) if kind == "blocking" else fn
    compose = _batch if batch else _single
    return Compiled(
        call=compose(target, signature, filter, failed or _reject),
        name=signature.name,
        kind=kind,
        wants=signature.wants,
        type=signature.type,
    )


def _kind(signature: Signature, blocking: bool | None) -> Literal["coroutine", "blocking", "direct"]:
    if not signature.coroutine:
        return "direct" if blocking is False else "blocking"
    if blocking:
        raise BadHandler(
            "blocking=True is for plain functions, and this is a coroutine function; leave blocking out", signature.name
        )
    return "coroutine"


def _check_filter(accepts: Accepts | None, name: str) -> None:
    if accepts is None:
        return
    if not callable(accepts):
        raise BadHandler(f"its filter {accepts!r} is not callable", name)
    if is_coroutine_function(accepts):
        raise BadHandler("its filter is a coroutine function; a filter is a plain function that answers at once", name)


async def _in_pool(run_blocking: RunBlocking, fn: Callable[..., Any], *args: Any) -> Any:
    result = await run_blocking(fn, args)
    # A plain function may still answer a coroutine: a lambda, or a decorator around a coroutine function.
    return await result if inspect.isawaitable(result) else result


# --- one message -----------------------------------------------------------------------------------------------------


def _single(
    target: Callable[..., Any],
    signature: Signature,
    accepts: Accepts | None,
    failed: Failed,
) -> Callable[[Message], Any]:
    call = _given(target, signature)
    if accepts is None:
        return call

    def filtered(message: Message) -> Any:
        return call(message) if accepts(message) else SKIPPED

    return filtered


def _given(target: Callable[..., Any], signature: Signature) -> Callable[[Message], Any]:
    if signature.wants == "message":
        return target
    argument = _argument(signature)
    if signature.wants == "payload":
        return lambda message: target(argument(message))
    return lambda message: target(argument(message), message)


def _argument(signature: Signature) -> Callable[[Message], Any]:
    """What turns a message into the payload the handler is annotated with."""
    type, classes = signature.type, signature.classes
    if type is Any:
        return attrgetter("payload")
    if not classes:
        return lambda message: convert(message.payload, type, message.content_type)

    def argument(message: Message) -> Any:
        payload = message.payload
        return payload if isinstance(payload, classes) else convert(payload, type, message.content_type)

    return argument


# --- batches ---------------------------------------------------------------------------------------------------------


def _batch(
    target: Callable[..., Any],
    signature: Signature,
    accepts: Accepts | None,
    failed: Failed,
) -> Callable[[list[Message]], Any]:
    call = _batch_given(target, signature, failed)
    if accepts is None:
        return call

    async def filtered(messages: list[Message]) -> Any:
        wanted = []
        for message in messages:
            try:
                accepted = accepts(message)
            except Exception as error:  # noqa: BLE001 - the attempt at this message has failed, whatever it was
                await _driven(failed(message, error))
                continue
            if accepted:
                wanted.append(message)
            else:
                await message.ack()
        return await _driven(call(wanted)) if wanted else SKIPPED

    return filtered


def _batch_given(target: Callable[..., Any], signature: Signature, failed: Failed) -> Callable[[list[Message]], Any]:
    if signature.wants == "message":
        return target
    argument = _argument(signature)
    both = signature.wants == "both"

    def sort(message: Message, payloads: list[Any], decoded: list[Message], bad: list[_Bad]) -> None:
        try:
            payloads.append(argument(message))
        except DecodeError as error:
            bad.append((message, error))
        else:
            decoded.append(message)

    async def converted(messages: list[Message]) -> Any:
        payloads: list[Any] = []
        decoded: list[Message] = []
        bad: list[_Bad] = []
        for message in messages:
            sort(message, payloads, decoded, bad)
        for message, error in bad:
            await _driven(failed(message, error))
        if not decoded:
            return None
        return await _driven(target(payloads, decoded) if both else target(payloads))

    return converted


async def _driven(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


def _reject(message: Message, error: Exception) -> Awaitable[None]:
    return message.reject(str(error))
