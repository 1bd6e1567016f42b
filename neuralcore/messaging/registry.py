"""Finds the transport for a URL.

A transport is an entry point in the group ``neuralcore.transports``: its name is the URL's scheme, its value a
Transport with a class method ``from_url(url)``, or any callable that takes the URL and answers a Transport. The ones
that come with NeuralCore go through the same door.
"""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from neuralcore.messaging.errors import MissingExtra, TransportError, UnknownScheme
from neuralcore.messaging.transport import Capabilities, Transport

__all__ = ["GROUP", "available_schemes", "installed_schemes", "schemes_with", "transport_for"]

GROUP: Final = "neuralcore.transports"

# For a source tree that was never installed and so has no metadata.
_BUILT_IN: Final = {
    "memory": "neuralcore.testing.memory:MemoryTransport",
    "native": "neuralcore.messaging.local:NativeTransport",
}
_EXTRAS: Final = {
    "kafka": "kafka",
    "redis": "redis",
    "redis+cluster": "redis",
    "redis+unix": "redis",
    "rediss": "redis",
    "rediss+cluster": "redis",
    "sqlite": "sqlite",
}
"""Schemes that come with NeuralCore, and the extras that they need."""
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")


def transport_for(transport: str | Transport) -> Transport:
    """The transport itself, or the one its URL names. Raises UnknownScheme, MissingExtra, TransportError."""
    if isinstance(transport, Transport):
        return transport
    if not isinstance(transport, str):
        raise TypeError(f"a transport is a URL or a Transport; got {type(transport).__name__}")
    scheme = _scheme(transport)
    return _built(_entry(scheme), transport)


def installed_schemes() -> tuple[str, ...]:
    """What ``transport_for`` knows, in alphabetical order."""
    return tuple(sorted(_entry_points()))


def available_schemes() -> tuple[str, ...]:
    """The installed ones that have all they need."""
    return tuple(scheme for scheme in installed_schemes() if _loaded(scheme) is not None)


def schemes_with(capability: str) -> tuple[str, ...]:
    """The available ones that declare a capability, or a kind of it: see ``Capabilities.offers``."""
    name = capability.partition("=")[0]
    declared = {scheme: _declared(scheme) for scheme in installed_schemes()}
    return tuple(scheme for scheme, has in declared.items() if name in has.names() and has.offers(capability))


def _scheme(url: str) -> str:
    # Never the whole URL in an error: it may hold a password.
    scheme, separator, _ = url.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme.lower()):
        raise TransportError("a transport's URL begins with scheme://, as in native:// or redis://host")
    return scheme.lower()


def _entry_points() -> dict[str, EntryPoint]:
    built_in = {name: EntryPoint(name, value, GROUP) for name, value in _BUILT_IN.items()}
    return built_in | {entry.name.lower(): entry for entry in entry_points(group=GROUP)}


def _entry(scheme: str) -> EntryPoint:
    if scheme == "native":
        # The default is nobody's to replace, and is there without a search of everything installed.
        return EntryPoint(scheme, _BUILT_IN[scheme], GROUP)
    entry = _entry_points().get(scheme)
    if entry is None:
        raise UnknownScheme(scheme, installed_schemes(), _pip(scheme) if scheme in _EXTRAS else None)
    return entry


def _built(entry: EntryPoint, url: str) -> Transport:
    try:
        factory = entry.load()
        transport = getattr(factory, "from_url", factory)(url)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", entry.module.partition(".")[0]):
            raise  # the transport itself is broken
        raise _missing(entry.name.lower(), package) from error
    if not isinstance(transport, Transport):
        kind = type(transport).__name__
        raise TransportError(f"{entry.value} of the scheme {entry.name} made a {kind}, which is not a Transport")
    return transport


def _missing(scheme: str, package: str) -> MissingExtra:
    return MissingExtra(package, _pip(scheme) if scheme in _EXTRAS else f"pip install {package}")


def _pip(scheme: str) -> str:
    return f"pip install 'neuralcore-runtime[{_EXTRAS[scheme]}]'"


def _loaded(scheme: str) -> Any | None:
    try:
        return _entry(scheme).load()
    except (ImportError, AttributeError):  # a package is missing, or the value names nothing
        return None


def _declared(scheme: str) -> Capabilities:
    capabilities = getattr(_loaded(scheme), "capabilities", None)
    return capabilities if isinstance(capabilities, Capabilities) else Capabilities()
