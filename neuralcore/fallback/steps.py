"""What a pump yields besides its handlers' futures, and how it is awaited."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from neuralcore.fallback.pump import Pump

__all__ = ["FRESH_CONTEXT", "YIELD", "Steps"]


class _FreshContext:
    """Yields itself to the pump, which goes on in a new context."""

    __slots__ = ()

    def __await__(self) -> Generator[_FreshContext, None, None]:
        yield self


class _Yield:
    """Lets the loop run once."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        yield


FRESH_CONTEXT: Final = _FreshContext()
YIELD: Final = _Yield()


class Steps:
    """A pump as the iterator that ``yield from`` wants."""

    __slots__ = ("_pump", "close", "send", "throw")

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self.send = pump.send
        self.throw = pump.throw
        self.close = pump.close

    def __iter__(self) -> Steps:
        return self

    def __next__(self) -> Any:
        return self._pump.send(None)
