"""What is installed here."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Literal, TypedDict

from neuralcore import _core
from neuralcore.messaging.registry import available_schemes

__all__ = ["Features", "get_available_features"]

_EXTRAS: Final[dict[str, tuple[str, ...]]] = {
    "cli": ("rich", "typer"),
    "embedding": ("onnxruntime", "tokenizers"),
    "observability": ("neuralcore-observability",),
    "testing": ("hypothesis", "pytest", "pytest-asyncio", "pytest-timeout"),
}
"""Extra: the distributions it brings. The extras of transports are there when their transport is."""

_TRANSPORT_EXTRAS: Final = ("kafka", "redis", "sqlite")
_OWN: Final = ("neuralcore-runtime", "neuralcore-transports", "msgspec", "numpy")


class Features(TypedDict):
    """A plain dictionary, ready for JSON."""

    core: Literal["native", "fallback"]
    debug_build: bool
    """The native core was built without optimisation: not for measuring."""
    transports: list[str]
    """The URL schemes that work here."""
    extras: dict[str, bool]
    """By the name to put into ``pip install 'neuralcore-runtime[…]'``."""
    versions: dict[str, str]
    """Of Python and of the distributions that are installed."""


def get_available_features() -> Features:
    """What is installed here: the core in use, transports, extras, versions."""
    transports = available_schemes()
    extras = {name: all(map(_version, packages)) for name, packages in _EXTRAS.items()}
    extras |= {name: name in transports for name in _TRANSPORT_EXTRAS}
    optional = [package for packages in _EXTRAS.values() for package in packages]
    found = {package: _version(package) for package in (*_OWN, *optional)}
    return Features(
        core=_core.IMPLEMENTATION,
        debug_build=_core.DEBUG_BUILD,
        transports=list(transports),
        extras=dict(sorted(extras.items())),
        versions={"python": platform.python_version()} | {name: v for name, v in found.items() if v is not None},
    )


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
