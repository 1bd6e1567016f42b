"""The thread that reads for a consumer, whatever handlers and the event loop are doing.

It polls without a pause, as the brokers want it of a living member; what has come goes to the loop partition by
partition, and a partition of which enough waits there is paused.

The client library lets one thread at a time into a consumer, for as long as it polls. So whatever is asked of the
consumer is done here, between two polls, which are short while somebody is likely to ask.

A consumer that has lost all brokers is replaced: whoever gave it its partitions gives them to the next one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Final, TypeVar, cast

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition

from neuralcore_transports.kafka.clients import log
from neuralcore_transports.kafka.records import Record
from neuralcore_transports.kafka.silence import Silence

__all__ = ["Call", "Flow", "Poller", "room"]

T = TypeVar("T")

_BATCH: Final = 1000
_BYTES: Final = 8_000_000
"""Of one partition that wait here; of small messages there may be ``prefetch``."""
_IDLE: Final = 0.02
_ALERT: Final = 0.001
"""Seconds of one poll."""
_LATER: Final = 1.0
"""Seconds after which a lost client's place is tried to be taken again."""
_ALERT_FOR: Final = 0.2
"""Seconds after an order in which others are expected."""

_HARMLESS: Final = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,  # it was removed, or is too new
    KafkaError._ALL_BROKERS_DOWN,  # the connections' own affair, which tells itself
    KafkaError._TRANSPORT,
)

Call = Callable[..., None]
"""Calls a function, with its arguments, on the loop; from any thread."""


class Flow:
    """One partition's way from the thread to the loop. A partition that is read from elsewhere is another flow."""

    __slots__ = (
        "_most",
        "_next",
        "_paused",
        "_read",
        "_taken",
        "arrived",
        "closed",
        "ended",
        "failed",
        "partition",
        "topic",
    )

    def __init__(
        self,
        topic: str,
        partition: int,
        arrived: Callable[[list[Record]], None],
        failed: Callable[[KafkaError], None],
        ended: Callable[[int], None] | None = None,
    ) -> None:
        """These are called on the loop. ``ended`` hears where the partition ends for now, if no message is before that
        which did not arrive: what is there is nobody's.
        """
        self.topic = topic
        self.partition = partition
        self.arrived = arrived
        self.failed = failed
        self.ended = ended
        self.closed = False
        self._next: int | None = None
        """The offset behind what was read; None while nothing was."""
        self._read = 0
        self._taken = 0
        self._most = 0
        """That may wait here, given how big they have been lately."""
        self._paused = False

    @property
    def key(self) -> tuple[str, int]:
        return self.topic, self.partition

    def at(self, offset: int) -> TopicPartition:
        return TopicPartition(self.topic, self.partition, offset)

    def deliver(self, records: list[Record]) -> None:
        if not self.closed:
            self.arrived(records)

    def end(self, offset: int) -> None:
        if not self.closed and self.ended is not None:
            self.ended(offset)

    def fail(self, error: KafkaError) -> None:
        if not self.closed:
            self.failed(error)


class Poller:
    def __init__(
        self,
        make: Callable[[], Consumer],
        call: Call,
        *,
        prefetch: int,
        name: str,
        silence: Silence,
        replaced: Callable[[], None],
        trouble: Callable[[KafkaError], None] | None = None,
    ) -> None:
        """``replaced`` is called in the thread when ``client`` is another one, which has no partitions yet; ``trouble``
        hears on the loop of errors that are no partition's. Raises TransportError.
        """
        self._make = make
        self.client = make()
        """For the thread."""
        self._silence = silence
        self._replaced = replaced
        self._call = call
        self._trouble = trouble
        self._prefetch = prefetch
        self._flows: dict[tuple[str, int], Flow] = {}
        """The thread's, but for a look."""
        self._alert_until = 0.0
        self._orders: deque[Callable[[], object]] = deque()
        self._stopping = False
        self._lost = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Blocks until the consumer is closed; False when it takes longer."""
        self._stopping = True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def stopping(self) -> bool:
        return self._stopping

    def order(self, what: Callable[[], object]) -> None:
        """Have it done in the thread: nothing that was read before arrives after it. From any thread."""
        self._orders.append(what)

    def ask(self, what: Callable[[], T], timeout: float) -> T:
        """The same, and wait for it. Raises what it raises, and TimeoutError."""
        answer: Future[T] = Future()

        def do() -> None:
            try:
                answer.set_result(what())
            except BaseException as error:  # noqa: BLE001 - whatever it is, who asked is told
                answer.set_exception(error)

        self.order(do)
        return answer.result(timeout)

    def has_lost_brokers(self) -> bool:
        """Asks brokers from time to time. In the thread, also for what waits there for one: when that has ended, the
        client is replaced.
        """
        self._lost = self._lost or self._silence.lasts(self.client)
        return self._lost

    # Flows; in the thread

    def add(self, flow: Flow, start: int | None = None) -> None:
        """``start``: the offset that it is read from, where that is known."""
        flow._next = start
        self._flows[flow.key] = flow

    def remove(self, topic: str, partition: int) -> Flow | None:
        flow = self._flows.pop((topic, partition), None)
        if flow is not None:
            self._tell(self.client.resume, flow)  # the library would find it paused when it comes back
            flow.closed = True
        return flow

    def read_on(self) -> None:
        """Give them all to a client that has none."""
        flows = self._flows.values()
        self.client.incremental_assign([flow.at(flow._next) for flow in flows if flow._next is not None])
        for flow in flows:
            if flow._paused:
                self._tell(self.client.pause, flow)

    def seek(self, flow: Flow, offset: int) -> None:
        """Read it from there, if it is paused once it goes on. Raises KafkaException."""
        self.client.seek(flow.at(offset))
        flow._next = offset

    def taken(self, flow: Flow, count: int) -> None:
        """So many of what arrived wait no more. On the loop."""
        flow._taken += count
        if flow._paused and flow._read - flow._taken <= flow._most // 2:
            flow._paused = False
            self.order(partial(self._resume, flow))

    # The thread

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        finally:
            self.client.close()

    def _turn(self) -> None:
        try:
            if self._orders:
                self._alert_until = time.monotonic() + _ALERT_FOR
                for _ in range(len(self._orders)):  # what orders itself again has to wait for a poll
                    self._orders.popleft()()
            first = self.client.poll(_ALERT if time.monotonic() < self._alert_until else _IDLE)
            if first is not None:
                self._alert_until = time.monotonic() + _ALERT_FOR
                self._sort(self._with_more(cast("Record", first)))
            if not self._stopping and self.has_lost_brokers():
                self._replace()
        except Exception:  # noqa: BLE001 - a member that no longer polls would hold its partitions, and tell nobody
            log.exception("reading failed, it is tried again")
            time.sleep(_LATER if self._lost else _IDLE)

    def _replace(self) -> None:
        left, self.client = [self.client], self._make()
        try:
            self._replaced()
            self._lost = False
        finally:
            # Not closed: it would say its last words in the midst of the next one's. Its end may take a lease's time.
            threading.Thread(target=left.clear, name=f"{self._thread.name}, left", daemon=True).start()

    def _with_more(self, first: Record) -> list[Record]:
        """If one of the library's callbacks raises meanwhile, the library drops what it has read."""
        try:
            return cast("list[Record]", [first, *self.client.consume(_BATCH - 1, 0)])
        except Exception:
            self._sort([first])
            for flow in self._flows.values():
                self._read_on(flow)
            raise

    def _sort(self, records: list[Record]) -> None:
        found: dict[tuple[str, int], list[Record]] = {}
        failed = []
        for record in records:
            error = record.error()
            if error is None:
                key = record.topic(), record.partition()
                if key in found:
                    found[key].append(record)
                else:
                    found[key] = [record]
            else:
                failed.append((record, error))
        parts = [(self._flows[key], part) for key, part in found.items() if key in self._flows]
        for flow, part in parts:
            self._count(flow, part)
        if parts:
            self._call(_deliver, parts)
        if found:
            self._silence.heard()
        for record, error in failed:
            self._failed(record, error)

    def _failed(self, record: Record, error: KafkaError) -> None:
        flow = self._flows.get((record.topic(), record.partition()))
        if error.code() == KafkaError._PARTITION_EOF:
            if flow is not None and flow.ended is not None and record.offset() > (flow._next or 0):
                self._call(flow.end, record.offset())
        elif flow is not None:
            self._call(flow.fail, error)
        elif error.code() in _HARMLESS:
            return
        elif self._trouble is not None:
            self._call(self._trouble, error)
        else:
            log.warning("reading %s failed: %s", record.topic(), error)

    def _count(self, flow: Flow, records: list[Record]) -> None:
        flow._next = records[-1].offset() + 1
        flow._read += len(records)
        flow._most = room(self._prefetch, records)
        if flow._read - flow._taken >= flow._most and not flow._paused:
            self._tell(self.client.pause, flow)
            flow._paused = True

    def _resume(self, flow: Flow) -> None:
        """By itself the library looks at it again up to a second later, if nothing else is read; a seek wakes it."""
        self._tell(self.client.resume, flow)
        self._read_on(flow)

    def _read_on(self, flow: Flow) -> None:
        """To what was not read yet."""
        if flow._next is not None:
            self._tell(lambda at: self.client.seek(at[0]), flow, flow._next)

    def _tell(self, what: Callable[[list[TopicPartition]], None], flow: Flow, offset: int = OFFSET_INVALID) -> None:
        if flow.closed:
            return
        try:
            what([flow.at(offset)])
        except KafkaException as error:  # it is ours no more, and whoever takes it back will say so
            log.debug("%s: %s", flow.key, error)


def room(most: int, records: list[Record]) -> int:
    """How many like these may wait."""
    return min(most, _BYTES * len(records) // max(1, sum(map(len, records))))


def _deliver(parts: list[tuple[Flow, list[Record]]]) -> None:
    """On the loop, which is woken once for all of them."""
    for flow, records in parts:
        flow.deliver(records)
