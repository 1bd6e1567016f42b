"""What a URL says: ``redis://user:secret@host:6379/0?durability=full&lease=10``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from neuralcore.messaging.errors import TransportError

__all__ = ["SCHEMES", "Address", "Durability", "RedisOptions"]

SCHEMES: Final = ("redis", "rediss", "redis+cluster", "rediss+cluster", "redis+unix")

Durability = Literal["server", "disk"]
"""What a publish that returned means: ``server``, the server has it, and keeps it as its own ``appendfsync`` says;
``disk``, its append-only file was synced too (WAITAOF, Redis 7.2; before, ``appendfsync always`` must be set)."""

_PREFIX = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LEAST_LEASE: Final = 0.5
"""Seconds: below, a busy machine alone would lose leases."""

Address = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisOptions:
    """All times are in seconds."""

    hosts: tuple[Address, ...] = (("localhost", 6379),)
    """Several only for a cluster: any of its nodes."""
    socket: str | None = None
    """The path of a unix socket, instead of hosts."""
    cluster: bool = False
    tls: bool = False
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    prefix: str = "nc"
    """All keys and topics begin with it: buses with different ones do not see each other."""
    durability: Durability = "server"
    replicas: int = 0
    """A publish returns when so many replicas have it too (WAIT)."""
    lease: float = 10.0
    """A client that died or was stopped loses what it had fetched after so long."""
    max_hold: float = 3600.0
    """How long one handler may keep one message."""
    dedup_window: float = 300.0
    """For channels that do not say otherwise."""
    session_ttl: float = 60.0
    """How long the broadcasts and inboxes of a client that fell silent are kept."""
    timeout: float = 5.0
    """How long the server may take to answer; what did not come until then is asked for on a new connection."""
    patience: float = 10.0
    """How long a publish is tried again before it is unknown."""
    poll: float = 1.0
    """How often to look for entries that somebody has added who rings no bell."""
    tls_ca: str | None = None
    """The file of the authority that the server's certificate is checked with; the system's when not given."""
    tls_cert: str | None = None
    tls_key: str | None = None

    def __post_init__(self) -> None:
        if self.durability not in get_args(Durability):
            known = ", ".join(get_args(Durability))
            raise TransportError(f"redis:// knows the durabilities {known}; got {self.durability!r}")
        if not _PREFIX.fullmatch(self.prefix):
            raise TransportError(
                "redis:// wants a prefix of at most 64 letters, digits, dots, dashes and underscores; "
                f"got {self.prefix!r}"
            )
        for name in _SECONDS:
            value = getattr(self, name)
            if not 0 < value < 1e9:
                raise TransportError(f"redis:// wants a positive number of seconds for {name!r}; got {value!r}")
        if self.lease < _LEAST_LEASE:
            raise TransportError(f"redis:// wants a lease of at least {_LEAST_LEASE} s; got {self.lease!r}")
        if self.replicas < 0 or self.database < 0:
            raise TransportError("redis:// wants no negative numbers of replicas or databases")
        if self.cluster and self.database:
            raise TransportError("a Redis cluster has one database only, number 0")
        self._check_tls()

    def _check_tls(self) -> None:
        given = [name for name in _FILES if getattr(self, name) is not None]
        if given and not self.tls:
            secure = "rediss+cluster://" if self.cluster else "rediss://"
            where = "there is no TLS on a unix socket" if self.socket else f"TLS is what {secure} has"
            raise TransportError(f"{where}, and {given[0]!r} goes with it")
        if self.tls_key is not None and self.tls_cert is None:
            raise TransportError("redis:// wants tls_cert= beside tls_key=")
        for name in given:
            path = getattr(self, name)
            if not Path(path).is_file():
                raise TransportError(f"redis:// wants a file for {name!r}, and there is none at {path!r}")

    @property
    def shown(self) -> str:
        """Where it is, without secrets."""
        where = self.socket or ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{'cluster ' if self.cluster else ''}{where}"

    @classmethod
    def from_url(cls, url: str) -> RedisOptions:
        """Raises TransportError, which never shows the password."""
        parts = _split(url)
        scheme = parts.scheme.lower()
        if scheme not in SCHEMES:
            raise TransportError(f"a URL of this transport begins with {', '.join(SCHEMES)}; got {scheme!r}")
        if parts.fragment:
            raise TransportError("redis:// has no fragment: write a # in a password as %23")
        if "@" in parts.query or ("@" in parts.path and scheme != "redis+unix"):
            raise TransportError(
                "an @ follows the host: write / ? # @ in a password as %2F %3F %23 %40, and an @ in an option as %40"
            )
        credentials, _, hosts = parts.netloc.rpartition("@")
        where: dict[str, Any] = {"tls": scheme.startswith("rediss"), "cluster": scheme.endswith("+cluster")}
        where.update(_credentials(credentials))
        if scheme == "redis+unix":
            if hosts or not parts.path.strip("/"):
                raise TransportError(
                    "a path follows redis+unix://, as in redis+unix:///run/redis/redis.sock?database=0"
                )
            where["socket"] = unquote(parts.path)
        else:
            where["hosts"] = _hosts(hosts, several=where["cluster"])
            where.update(_database(parts.path))
        given = parse_qsl(parts.query, keep_blank_values=True)
        names = [*(name for name in where if name == "database"), *(name for name, _ in given)]
        twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
        if twice is not None:
            raise TransportError(f"redis:// is given {twice!r} twice")
        return cls(**where, **_read(dict(given)))


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # its text has the host with the password
        raise TransportError(
            "the URL has brackets that are not an IPv6 address's, or characters that no host has: "
            "write them in a password with % and their codes, as quote(password, safe='') does"
        ) from None


def _credentials(text: str) -> dict[str, str]:
    if not text:
        return {}
    username, separator, password = text.partition(":")
    if not separator:
        raise TransportError("credentials are written as user:password@, or :password@ for the default user")
    found = {"password": unquote(password)}
    if username:
        found["username"] = unquote(username)
    return found


def _hosts(text: str, *, several: bool) -> tuple[Address, ...]:
    found = tuple(_address(each) for each in text.split(",")) if text else (("localhost", 6379),)
    if len(found) > 1 and not several:
        raise TransportError(
            "redis:// has one host; the nodes of a cluster follow redis+cluster://, as in redis+cluster://h1,h2,h3"
        )
    return found


def _address(text: str) -> Address:
    """What follows the colon is not shown: without an @ it may be a password."""
    parts = urlsplit(f"//{text}")
    host = parts.hostname
    if not host:
        raise TransportError(f"{text.partition(':')[0]!r} is no host:port")
    try:
        port = parts.port
    except ValueError:
        raise TransportError(f"the port of {host!r} is no number from 0 to 65535") from None
    return host, 6379 if port is None else port


def _database(path: str) -> dict[str, int]:
    text = path.strip("/")
    if not text:
        return {}
    if not text.isdecimal():
        raise TransportError(f"the path of redis:// is the number of a database, as in redis://host/0; got {text!r}")
    return {"database": int(text)}


_SECONDS: Final = ("lease", "max_hold", "dedup_window", "session_ttl", "timeout", "patience", "poll")
_FILES: Final = ("tls_ca", "tls_cert", "tls_key")
_READERS: Final[Mapping[str, tuple[Callable[[str], Any], str]]] = {
    **dict.fromkeys(_SECONDS, (float, "a number of seconds")),
    **dict.fromkeys(("database", "replicas"), (int, "a whole number")),
    **dict.fromkeys(("prefix", "durability", *_FILES), (str, "a text")),
}


def _read(given: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in _READERS:
            raise TransportError(f"redis:// has no option {name!r}; it has {', '.join(_READERS)}")
        reader, wanted = _READERS[name]
        try:
            found[name] = reader(value)
        except ValueError:
            raise TransportError(f"redis:// wants {wanted} for {name!r}; got {value!r}") from None
    return found
