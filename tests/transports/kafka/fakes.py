"""What the client library gives, without a broker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError

from neuralcore._core import Clock
from neuralcore.messaging.transport import Delivery, Envelope, Outcome, Settlement
from neuralcore_transports.kafka.dedup import Seen
from neuralcore_transports.kafka.partition import Partition
from neuralcore_transports.kafka.records import headers_of
from neuralcore_transports.kafka.silence import Silence
from neuralcore_transports.kafka.window import Commit, Moment, Window

__all__ = [
    "NOW_MS",
    "NOW_NS",
    "SECOND",
    "Asked",
    "FakeRecord",
    "Hands",
    "a_clock",
    "a_silence",
    "after",
    "crashed",
    "record_of",
]

NOW_MS = 1_772_600_767_123
NOW_NS = NOW_MS * 1_000_000
SECOND = 10**9
_SOURCE = "urn:neuralcore:bus:x"


@dataclass(frozen=True)
class FakeRecord:
    at: int = 4
    data: bytes | None = b""
    by: bytes | None = None
    given: Sequence[tuple[str, bytes | None]] | None = None
    stored: tuple[int, int] = (1, NOW_MS)

    def __len__(self) -> int:
        return len(self.data or b"")

    def topic(self) -> str:
        return "nc.orders"

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes | None:
        return self.by

    def value(self) -> bytes | None:
        return self.data

    def headers(self) -> Sequence[tuple[str, bytes | None]] | None:
        return self.given

    def timestamp(self) -> tuple[int, int]:
        return self.stored

    def error(self) -> KafkaError | None:
        return None


def record_of(envelope: Envelope, offset: int, now_ns: int = NOW_NS) -> FakeRecord:
    """The envelope as brokers give it back."""
    headers = [
        (name, value.encode() if isinstance(value, str) else value)
        for name, value in headers_of(envelope, _SOURCE, now_ns)
    ]
    by = None if envelope.key is None else envelope.key.encode()
    return FakeRecord(offset, envelope.body, by, headers, (1, now_ns // 1_000_000))


def a_silence(name: str = "the client") -> Silence:
    """Of one that is not asked for as long as a test takes."""
    return Silence(name, Asked, 60.0, quiet=60.0)


class Asked:
    """A client that asks whether a broker is there: one is."""

    def list_topics(self, topic: str, timeout: float) -> None: ...


def a_clock() -> Clock:
    return Clock(manual=True, time_ns=NOW_NS)


class Hands:
    """A partition with what is around it: a clock, a demand, and a broker that takes every commit."""

    def __init__(
        self,
        window: Window | None = None,
        *,
        clock: Clock | None = None,
        seen: Seen | None = None,
        channel: str = "orders",
        band: int = 0,
        below: int | None = None,
        number: int = 3,
    ) -> None:
        self.clock = clock or a_clock()
        self.counted: list[str] = []
        self.taken: list[int] = []
        self.partition = Partition(
            self,
            (f"nc.{channel}.{band}", number),
            channel,
            band,
            window or Window(0),
            clock=self.clock,
            seen=seen or Seen(10**18, 10**6),
            taken=self.taken.append,
            count=self.counted.append,
            below=below,
        )
        self.partition.demanded = 1000

    @property
    def window(self) -> Window:
        return self.partition.window

    def arrive(self, *records: FakeRecord) -> None:
        self.partition.arrived(list(records))

    def publish(self, *ids: str, first: int = 0, key: str | None = None) -> None:
        """Messages arrive, and may be handed out."""
        self.arrive(
            *(
                record_of(Envelope(id=id, channel="orders", body=b"", key=key), offset, self.clock.time_ns())
                for offset, id in enumerate(ids, first)
            )
        )
        self.reserve()

    def reserve(self, ahead: int = 1000) -> None:
        self.window.committed(self.window.commit(clean=False, ahead=ahead))

    def take(self, limit: int = 1000) -> list[Delivery]:
        return self.partition.take(7, limit, self.clock.monotonic_ns())

    def ids(self, limit: int = 1000) -> list[str]:
        return [delivery.envelope.id for delivery in self.take(limit)]

    def settle(self, delivery: Delivery, outcome: Outcome, *, delay_ns: int = 0, pass_key: bool = False) -> bool:
        settlement = Settlement(delivery, outcome, delay_ns=delay_ns, pass_key=pass_key)
        return self.partition.settle(settlement, self.clock.monotonic_ns())

    def ack(self, *deliveries: Delivery) -> None:
        for delivery in deliveries:
            assert self.settle(delivery, Outcome.ACK)


def crashed(hands: Hands) -> Hands:
    """The next owner, after the last commit."""
    return after(hands.window.commit(clean=False, now=Moment.now(hands.clock)), hands)


def after(commit: Commit, hands: Hands, *, jump: float = 0) -> Hands:
    """``jump``: hours by which the wall clock is another one there."""
    hands.clock.jump(round(jump * 3600 * SECOND))
    return Hands(Window.restored(commit.offset, commit.metadata, now=Moment.now(hands.clock)), clock=hands.clock)
