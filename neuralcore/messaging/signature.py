"""Reads what a handler wants from its signature and annotations."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from neuralcore._core import Message
from neuralcore.messaging.codec import check_type
from neuralcore.messaging.errors import BadHandler

__all__ = ["Signature", "Wants", "is_coroutine_function", "read_signature"]

Wants = Literal["message", "payload", "both"]

_EMPTY = inspect.Parameter.empty
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_LISTS = (list, Sequence, Collection, Iterable)
_UNIONS = (Union, types.UnionType)
_UNASSIGNED = types.CellType()


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    name: str
    coroutine: bool
    wants: Wants
    type: Any
    """The payload's type; in a batch, that of each."""
    classes: tuple[type, ...]
    """Instances of these are payloads as they are; empty when isinstance cannot tell."""


def read_signature(fn: Callable[..., Any], *, batch: bool) -> Signature:
    """Raises BadHandler."""
    name = _name(fn)
    _check_callable(fn, name)
    first, *others = _parameters(fn, name)
    wanted = [_annotation(fn, parameter, name) for parameter in (first, *others[:1])]
    if batch:
        wanted = [_element(wanted[0], name), *(_second_element(a, others[0].name, name) for a in wanted[1:])]
    elif get_origin(wanted[0]) in _LISTS and _is_message(*get_args(wanted[0])[:1]):
        raise BadHandler("it wants a list of messages: subscribe it with batch=", name)
    whole = wanted[0] is _EMPTY or _is_message(wanted[0])
    both = _also_message(others, wanted[1:], whole, name)
    type = Any if whole else _payload_type(wanted[0], name)
    return Signature(
        name=name,
        coroutine=is_coroutine_function(fn),
        wants="message" if whole else "both" if both else "payload",
        type=type,
        classes=_classes(type),
    )


def is_coroutine_function(fn: object) -> bool:
    """Also inside partials, methods, decorators and objects with an ``async def __call__``."""
    return _any_layer(fn, inspect.iscoroutinefunction)


def _name(fn: object) -> str:
    inner = list(_layers(fn))[-1]
    named = inner if hasattr(inner, "__qualname__") else type(inner)
    module = getattr(named, "__module__", None)
    qualname = str(getattr(named, "__qualname__", named))
    return qualname if module in (None, "builtins") else f"{module}.{qualname}"


def _layers(fn: object) -> Iterator[object]:
    """The callable itself, and what partials, decorators and bound methods have inside."""
    seen: set[int] = set()
    while id(fn) not in seen:
        seen.add(id(fn))
        yield fn
        if isinstance(fn, functools.partial):
            fn = fn.func
        elif isinstance(fn, types.MethodType):
            fn = fn.__func__
        elif hasattr(fn, "__wrapped__"):
            fn = fn.__wrapped__


def _any_layer(fn: object, test: Callable[[Any], bool]) -> bool:
    return any(test(layer) or test(_call_method(layer)) for layer in _layers(fn))


def _call_method(value: object) -> object:
    """The ``__call__`` of an object with one of its own."""
    return getattr(type(value), "__call__", None)  # noqa: B004 - the method is wanted, not a test


# --- what can be a handler at all ------------------------------------------------------------------------------------


def _check_callable(fn: object, name: str) -> None:
    if not callable(fn):
        raise BadHandler(f"it is {fn!r}, which cannot be called", name)
    if isinstance(fn, type):
        raise BadHandler("it is a class; subscribe an instance with __call__, or a method", name)
    if _any_layer(fn, inspect.isasyncgenfunction) or _any_layer(fn, inspect.isgeneratorfunction):
        raise BadHandler("it is a generator function; return a value instead of yielding", name)


def _parameters(fn: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    """Those that can be given by position, at least one."""
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (ValueError, TypeError):
        # Functions written in C and mocks may not say; one argument is what a handler gets.
        parameters = [inspect.Parameter("message", inspect.Parameter.POSITIONAL_ONLY)]
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.default is _EMPTY:
            raise BadHandler(
                f"it requires the keyword {parameter.name!r}, which nobody gives: add a default, or use a partial",
                name,
            )
    given = [p for p in parameters if p.kind in _POSITIONAL]
    given += [p for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL][: 0 if given else 1]
    if not given:
        raise BadHandler("it takes no parameter; give it one for the message or its payload", name)
    return given


def _also_message(others: list[inspect.Parameter], wanted: list[Any], whole: bool, name: str) -> bool:
    """Whether the second parameter is for the message."""
    second_is_message = bool(others) and _is_message(wanted[0])
    if second_is_message and whole:
        raise BadHandler(
            f"it takes the message twice; annotate its first parameter with the payload's type, or drop "
            f"{others[0].name!r}",
            name,
        )
    extra = [p.name for p in others[1 if second_is_message else 0 :] if p.default is _EMPTY]
    if extra:
        raise BadHandler(
            f"it requires {' and '.join(map(repr, extra))} beside what it is given: handle(message), "
            "handle(payload: T) or handle(payload: T, message: Message)",
            name,
        )
    return second_is_message


# --- annotations -----------------------------------------------------------------------------------------------------


def _annotation(fn: Callable[..., Any], parameter: inspect.Parameter, name: str) -> Any:
    """Resolved, when it is a string or holds some; ``_EMPTY`` when there is none."""
    if parameter.annotation is _EMPTY:
        return _EMPTY
    holder = types.SimpleNamespace(__annotations__={"it": parameter.annotation})
    names, closure = _scope(fn)
    try:
        return get_type_hints(holder, names, closure, include_extras=True)["it"]
    except Exception as error:
        raise BadHandler(
            f"the annotation {parameter.annotation!r} of {parameter.name!r} cannot be resolved ({error}): "
            "define or import it at the top of the module, and not under TYPE_CHECKING",
            name,
        ) from error


def _scope(fn: object) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The global names and the enclosing functions' names that the innermost function sees."""
    inner = list(_layers(fn))[-1]
    if not isinstance(inner, types.FunctionType):
        inner = inspect.unwrap(_call_method(inner))  # type: ignore[arg-type]
    if not isinstance(inner, types.FunctionType):
        return {}, {}
    cells = zip(inner.__code__.co_freevars, inner.__closure__ or (), strict=True)
    return inner.__globals__, {name: cell.cell_contents for name, cell in cells if cell != _UNASSIGNED}


def _element(annotation: Any, name: str) -> Any:
    """What a batch is a list of, by its annotation."""
    if annotation is _EMPTY or annotation in _LISTS:
        return _EMPTY
    if get_origin(annotation) in _LISTS:
        return get_args(annotation)[0]
    raise BadHandler(f"batch= hands it a list, but it wants {_shown(annotation)}; annotate it list[...]", name)


def _second_element(annotation: Any, parameter: str, name: str) -> Any:
    if _is_message(annotation):
        raise BadHandler(f"batch= hands it lists, but {parameter!r} wants one Message; annotate it list[Message]", name)
    return get_args(annotation)[0] if get_origin(annotation) in _LISTS else annotation


def _is_message(annotation: Any = _EMPTY) -> bool:
    """``Message``, also ``Message | None`` and ``Annotated[Message, ...]``."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in _UNIONS:
        return [a for a in get_args(annotation) if a is not types.NoneType] == [Message]
    return annotation is Message


def _payload_type(annotation: Any, name: str) -> Any:
    if annotation is object:
        return Any
    try:
        check_type(annotation)
    except TypeError as error:
        raise BadHandler(f"no payload can be decoded as {_shown(annotation)}: {error}", name) from error
    return annotation


def _classes(annotation: Any) -> tuple[type, ...]:
    """The classes whose instances need no conversion."""
    options = get_args(annotation) if get_origin(annotation) in _UNIONS else (annotation,)
    return tuple(options) if all(_testable(option) for option in options) else ()


def _testable(option: Any) -> bool:
    # bool is an int to isinstance, but not to a decoder; a float may come as an int.
    if not isinstance(option, type) or get_origin(option) is not None or option in (int, float):
        return False
    try:
        isinstance(None, option)
    except TypeError:  # TypedDict, protocols
        return False
    return True


def _shown(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
