"""What a URL says: ``kafka://h1:9092,h2/prefix?lease=10&security.protocol=SSL``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from neuralcore.messaging.errors import TransportError

__all__ = ["SCHEME", "KafkaOptions"]

SCHEME: Final = "kafka"
_PORT: Final = 9092
_PREFIX: Final = re.compile(r"[A-Za-z0-9-]{1,64}")

_OURS: Final = {
    "acks": "all is what a returned publish means",
    "auto.commit.enable": "what is settled is committed, and nothing else",
    "auto.offset.reset": "a position that is gone is reported, and reading goes on behind the gap",
    "bootstrap.servers": "they are the URL's hosts",
    "delivery.report.only.error": "a publish returns when it is told that the message is stored",
    "delivery.timeout.ms": "say patience=",
    "enable.auto.commit": "what is settled is committed, and nothing else",
    "enable.auto.offset.store": "what is settled is committed, and nothing else",
    "enable.idempotence": "it is always on",
    "enable.partition.eof": "the end of a partition may be the mark of a transaction, which only this tells of",
    "group.id": "it is the subscription's group=",
    "group.instance.id": "say instance=",
    "group.protocol": "settling out of order takes a classic group",
    "isolation.level": "it is read_committed: nobody gets what a transaction has not finished",
    "log_level": "set the level of the logger neuralcore.kafka",
    "message.timeout.ms": "say patience=",
    "metadata.broker.list": "they are the URL's hosts",
    "partition.assignment.strategy": "it is cooperative-sticky: others stop the whole group at each change",
    "partitioner": "it is murmur2_random: all clients have to find a key in one partition",
    "queuing.strategy": "messages are stored in the order in which they are published",
    "request.required.acks": "all is what a returned publish means",
    "session.timeout.ms": "say lease=",
    "statistics.interval.ms": "say statistics=",
    "transaction.timeout.ms": "say lease=",
    "transactional.id": "the transport names its own",
}
"""Settings of the client library that cannot be passed on, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaOptions:
    """All times are in seconds."""

    hosts: tuple[str, ...] = (f"localhost:{_PORT}",)
    prefix: str = ""
    """Topics and groups begin with it and a dot: buses with different ones do not see each other."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    partitions: int = 8
    """Of a new channel that does not say: so many processes share one group's work on it. Dead letters have one."""
    replication: int | None = None
    """Of a new channel that does not say; the brokers' own default when not given."""
    create: bool = True
    """Make the topics of channels that are not there yet."""
    trim: bool = True
    """Delete what retention does not keep, as on every other transport; topics then keep all else for ever. Without
    it, Kafka's own retention decides alone, and may delete what nobody has handled."""
    lease: float = 10.0
    """A process that died or was stopped loses what it had fetched after so long (Kafka's session time-out)."""
    dedup_window: float = 300.0
    """For channels that do not say otherwise."""
    dedup_count: int = 50_000
    """The most ids of a partition that are remembered for it."""
    timeout: float = 10.0
    """How long the brokers may take to answer."""
    patience: float = 10.0
    """How long a publish is tried again before it is unknown."""
    handover: float = 2.0
    """How long running handlers may go on when their partition moves to another process."""
    prefetch: int = 4000
    """Messages of a partition that are kept in memory, before handlers ask for them; fewer when they are big."""
    inboxes: int = 8
    """Partitions of the topic that replies arrive in, made by the first who asks."""
    upkeep: float = 5.0
    """How often what nobody needs any more is deleted."""
    statistics: float = 10.0
    """How often the client library tells of itself, which becomes the bus's metrics; 0: never."""
    instance: str | None = None
    """A name of this process alone, the same after a restart: its partitions wait for it for ``lease`` seconds
    (static membership)."""
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Of the client library, such as ``sasl.mechanism`` or ``ssl.ca.location``, passed on as they are."""

    def __post_init__(self) -> None:
        if self.prefix and not _PREFIX.fullmatch(self.prefix):
            raise TransportError(
                f"kafka:// wants a prefix of at most 64 letters, digits and dashes, which a dot follows; "
                f"got {self.prefix!r}"
            )
        for name in _SECONDS:
            value = getattr(self, name)
            if not (0 < value < 1e6 or (value == 0 and name == "statistics")):
                raise TransportError(f"kafka:// wants a positive number of seconds for {name!r}; got {value!r}")
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise TransportError(f"kafka:// wants at least 1 for {name!r}; got {value!r}")
        for name in self.settings:
            if name in _OURS:
                raise _ours(name)
        if self.username is not None and not any(name in self.settings for name in _MECHANISM):
            raise TransportError(
                "kafka:// with a user wants security.protocol= and sasl.mechanism=, "
                "as in ?security.protocol=SASL_SSL&sasl.mechanism=SCRAM-SHA-512"
            )

    def dedup_ns(self, channel: float | None) -> int:
        """``channel``: what it says of it."""
        return round((self.dedup_window if channel is None else channel) * 1e9)

    @property
    def answering(self) -> float:
        """Seconds after which another broker is asked instead of one that owes an answer."""
        return max(self.timeout, 5.0)

    @property
    def shown(self) -> str:
        """Where it is, without secrets."""
        return ",".join(self.hosts)

    @classmethod
    def from_url(cls, url: str) -> KafkaOptions:
        """Raises TransportError, which never shows the password."""
        parts = _split(url)
        if parts.fragment:
            raise TransportError("kafka:// has no fragment: write a # in a password as %23")
        if "@" in parts.query or "@" in parts.path:
            raise TransportError(
                "an @ follows the host: write / ? # @ in a password as %2F %3F %23 %40, and an @ in an option as %40"
            )
        credentials, _, hosts = parts.netloc.rpartition("@")
        given = parse_qsl(parts.query, keep_blank_values=True)
        names = [name for name, _ in given]
        twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
        if twice is not None:
            raise TransportError(f"kafka:// is given {twice!r} twice")
        where: dict[str, Any] = {
            "hosts": _hosts(hosts),
            "prefix": unquote(parts.path.strip("/")),
            **_credentials(credentials),
        }
        return cls(**where, **_read(dict(given)))


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # its text has the host with the password
        raise _brackets() from None


def _brackets() -> TransportError:
    return TransportError(
        "the URL has brackets that are not an IPv6 address's: write them in a password as %5B and %5D"
    )


def _ours(name: str) -> TransportError:
    return TransportError(f"kafka:// does not pass on {name!r}: {_OURS[name]}")


def _credentials(text: str) -> dict[str, str]:
    if not text:
        return {}
    username, separator, password = text.partition(":")
    if not separator or not username:
        raise TransportError("credentials are written as user:password@")
    return {"username": unquote(username), "password": unquote(password)}


def _hosts(text: str) -> tuple[str, ...]:
    return tuple(_host(each) for each in text.split(",")) if text else (f"localhost:{_PORT}",)


def _host(text: str) -> str:
    """What follows the colon is not shown: without an @ it may be a password."""
    parts = _split(f"//{text}")
    if not parts.hostname:
        raise TransportError(f"{text.partition(':')[0]!r} is no host:port")
    try:
        port = parts.port
    except ValueError:
        raise TransportError(f"the port of {parts.hostname!r} is no number from 0 to 65535") from None
    if text.startswith("[") and ":" not in parts.hostname:
        raise _brackets()
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{name}:{_PORT if port is None else port}"


def _yes_or_no(text: str) -> bool:
    if text.lower() not in (*_YES, *_NO):
        raise ValueError(text)
    return text.lower() in _YES


_YES: Final = ("yes", "true", "on", "1")
_NO: Final = ("no", "false", "off", "0")
_MECHANISM: Final = ("sasl.mechanism", "sasl.mechanisms")
_SECONDS: Final = ("lease", "dedup_window", "timeout", "patience", "handover", "upkeep", "statistics")
_COUNTS: Final = ("partitions", "replication", "prefetch", "inboxes", "dedup_count")
_READERS: Final[Mapping[str, tuple[Callable[[str], Any], str]]] = {
    **dict.fromkeys(_SECONDS, (float, "a number of seconds")),
    **dict.fromkeys(_COUNTS, (int, "a whole number")),
    **dict.fromkeys(("create", "trim"), (_yes_or_no, "yes or no")),
    "instance": (str, "a text"),
}


def _read(given: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {"settings": {name: value for name, value in given.items() if "." in name}}
    for name, value in given.items():
        if "." in name:
            continue
        if name in _OURS:
            raise _ours(name)
        if name not in _READERS:
            raise TransportError(
                f"kafka:// has no option {name!r}; it has {', '.join(_READERS)}, "
                "and passes on what has a dot in its name, such as ssl.ca.location"
            )
        reader, wanted = _READERS[name]
        try:
            found[name] = reader(value)
        except ValueError:
            raise TransportError(f"kafka:// wants {wanted} for {name!r}; got {value!r}") from None
    return found
