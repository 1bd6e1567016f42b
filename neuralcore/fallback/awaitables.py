"""Awaitables that are already done."""

from collections.abc import Generator
from types import coroutine
from typing import Any, TypeVar

__all__ = ["done", "done_after_yield"]

T = TypeVar("T")
_NEVER = False


@coroutine
def done(value: T) -> Generator[Any, Any, T]:
    """As a generator it is cheaper than a coroutine, and may be thrown away without a warning."""
    if _NEVER:
        yield
    return value


@coroutine
def done_after_yield(value: T) -> Generator[Any, Any, T]:
    """Lets the loop run once."""
    yield
    return value
