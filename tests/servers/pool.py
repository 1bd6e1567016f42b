"""The servers that all tests of a run share: started when first wanted, stopped when the tests' process ends.

A session fixture that several conftest.py import is a fixture of each, with a setup of its own: so the sharing is here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

__all__ = ["heal", "shared"]


class _Server(Protocol):
    def start(self) -> object: ...

    def heal(self) -> None: ...


_S = TypeVar("_S", bound=_Server)
_servers: dict[str, _Server] = {}


def shared(name: str, make: Callable[[], _S]) -> _S:
    """The one of this name, running; made and started by the first who asks."""
    if name not in _servers:
        server = make()
        server.start()
        _servers[name] = server
    return _servers[name]  # type: ignore[return-value]


def heal() -> None:
    for server in _servers.values():
        server.heal()
