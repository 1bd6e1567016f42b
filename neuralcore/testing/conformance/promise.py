"""What the suite is made of: promises, each with the check that proves it, and the words in which a check fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neuralcore.messaging.transport import Capabilities

if TYPE_CHECKING:
    from neuralcore.testing.conformance.bed import Bed

__all__ = ["Broken", "Promise", "Unproven", "expect", "promise", "registered", "same"]

Check = Callable[["Bed"], Awaitable[None]]

_LONGEST = 400


class Broken(AssertionError):
    """The transport did not keep the promise."""


class Unproven(Exception):
    """The harness cannot bring about what the check needs."""


@dataclass(frozen=True, slots=True)
class Promise:
    """One sentence that a transport must keep, and the check that proves it."""

    group: str
    name: str
    text: str
    check: Check
    needs: tuple[str, ...] = ()
    """Fields of Capabilities, or ``field=value``. Without them the promise reads "not declared"."""
    stores: bool = False
    """It is about what outlives one client: not for a transport that lives inside the bus's process."""
    mandatory: bool = False
    """It holds for every transport that it can be asked of."""

    def __str__(self) -> str:
        return f"{self.group}.{self.name}"

    def missing(self, capabilities: Capabilities) -> tuple[str, ...]:
        """What the transport would have to declare for this promise to apply."""
        lacking = [need for need in self.needs if not capabilities.offers(need)]
        if self.stores and capabilities.in_process:
            lacking.append("a store of its own")
        return tuple(lacking)


_registered: dict[str, Promise] = {}


def promise(*needs: str, stores: bool = False, mandatory: bool = False) -> Callable[[Check], Check]:
    """Register a check; its docstring's first line is the promise, its module the group."""
    unknown = {need.partition("=")[0] for need in needs} - set(Capabilities.__dataclass_fields__)
    if unknown:
        raise ValueError(f"Capabilities has no {', '.join(sorted(unknown))}")

    def register(check: Check) -> Check:
        group, name = check.__module__.rpartition(".")[2], check.__name__
        text = (check.__doc__ or "").partition("\n")[0].strip()
        made = Promise(group, name, text, check, needs, stores, mandatory)
        if not text or str(made) in _registered:
            raise ValueError(f"{made} needs a docstring and a name of its own")
        _registered[str(made)] = made
        return check

    return register


def registered() -> tuple[Promise, ...]:
    return tuple(_registered.values())


def expect(holds: object, said: str) -> None:
    """``said`` tells what went wrong."""
    if not holds:
        raise Broken(said)


def same(got: Any, wanted: Any, what: str) -> None:
    if got != wanted:
        raise Broken(f"{what}: expected {_short(wanted)}, got {_short(got)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"
