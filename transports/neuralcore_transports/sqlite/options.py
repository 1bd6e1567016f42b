"""What a URL says: ``sqlite:///var/lib/app/bus.db?durability=full&lease=10``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Literal, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

from neuralcore.messaging.errors import TransportError
from neuralcore_transports.sqlite.store.moment import Limits

__all__ = ["Durability", "SqliteOptions"]

Durability = Literal["full", "normal", "off"]
"""What a publish that returned survives: ``full`` power cuts, ``normal`` the death of any process (a power cut may take
the last ones), ``off`` the death of any process (a power cut may damage the whole file)."""

_LEAST_LEASE: Final = 0.5
"""Seconds: below, a busy machine alone would lose leases."""


@dataclass(frozen=True, slots=True)
class SqliteOptions:
    """All times are in seconds."""

    path: Path
    durability: Durability = "full"
    lease: float = 10.0
    """A process that was stopped loses what it had fetched after so long. One that died loses it at once."""
    max_hold: float = 3600.0
    """How long one handler may keep one message."""
    dedup_window: float = 300.0
    """For channels that do not say otherwise."""
    session_ttl: float = 60.0
    """How long the broadcasts and inboxes of a process that was stopped are kept."""
    busy: float = 10.0
    """How long another process may keep the file locked before that is an error."""
    poll: float = 0.01
    """How often to look for what other processes have stored, where the kernel does not tell of it."""

    def __post_init__(self) -> None:
        if self.durability not in get_args(Durability):
            raise TransportError(
                f"sqlite:// knows the durabilities {', '.join(get_args(Durability))}; got {self.durability!r}"
            )
        for each in fields(self)[2:]:
            value = getattr(self, each.name)
            if not 0 < value < 1e9:
                raise TransportError(f"sqlite:// wants a positive number of seconds for {each.name!r}; got {value!r}")
        if self.lease < _LEAST_LEASE:
            raise TransportError(f"sqlite:// wants a lease of at least {_LEAST_LEASE} s; got {self.lease!r}")

    @classmethod
    def from_url(cls, url: str) -> SqliteOptions:
        """Raises TransportError."""
        parts = urlsplit(url)
        if parts.netloc:
            raise TransportError(
                f"a path follows sqlite://, as in sqlite:///var/lib/app/bus.db (absolute) or sqlite:///./bus.db; "
                f"{parts.netloc!r} would be a host"
            )
        if parts.fragment:
            raise TransportError("sqlite:// has no fragment: write a # in the path as %23")
        path = unquote(parts.path)
        if "\0" in path:
            raise TransportError("sqlite:// needs the path of a file; one with a zero byte in it is no path")
        if path.startswith(("/./", "/../")):
            path = path[1:]
        if path in ("", "/") or path.endswith("/") or path.startswith("/:memory:"):
            raise TransportError(
                "sqlite:// needs the path of a file, as in sqlite:///var/lib/app/bus.db; "
                "for a bus without a file there is native://"
            )
        given = parse_qsl(parts.query, keep_blank_values=True)
        twice = next((name for index, (name, _) in enumerate(given) if name in dict(given[:index])), None)
        if twice is not None:
            raise TransportError(f"sqlite:// is given {twice!r} twice")
        return cls(Path(path), **{name: _read(name, value) for name, value in given})  # type: ignore[arg-type]

    def limits(self) -> Limits:
        return Limits(
            lease=_ns(self.lease),
            max_hold=_ns(self.max_hold),
            dedup_window=_ns(self.dedup_window),
            session_ttl=_ns(max(self.session_ttl, self.lease)),
        )

    @property
    def level(self) -> str:
        """SQLite's ``synchronous``."""
        return self.durability.upper()


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _read(name: str, value: str) -> str | float:
    readers: dict[str, Callable[[str], str | float]] = {
        each.name: str if each.name == "durability" else float for each in fields(SqliteOptions)[1:]
    }
    if name not in readers:
        raise TransportError(f"sqlite:// has no option {name!r}; it has {', '.join(readers)}")
    try:
        return readers[name](value)
    except ValueError:
        raise TransportError(f"sqlite:// wants a number of seconds for {name!r}; got {value!r}") from None
