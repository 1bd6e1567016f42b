"""A Prometheus collector over ``bus.metrics()``: nothing is counted twice, and nothing is done between two scrapes.

>>> REGISTRY.register(BusCollector(bus))
>>> start_http_server(9464, addr="127.0.0.1")
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from neuralcore.messaging import MessageBus
from neuralcore.messaging.metrics import BusMetrics, ChannelMetrics, Latency, SubscriptionMetrics

__all__ = ["BusCollector", "template"]

CHANNEL = ("bus", "channel")
SUBSCRIPTION = ("bus", "pattern", "group")

CHANNEL_COUNTERS = {
    "published": "Messages that at least one mailbox, or the store, took.",
    "unrouted": "Messages that nobody listened to.",
    "refused": "Publishes that raised.",
}
SUBSCRIPTION_COUNTERS = {
    "delivered": "Messages handed to a handler.",
    "acked": "Messages that are done.",
    "retried": "Failed attempts that are tried again.",
    "released": "Deliveries given back untouched.",
    "dead_lettered": "Messages that failed for good.",
    "dropped": "Messages that the overflow policy did not keep.",
    "expired": "Messages whose time to live passed before a handler got them.",
}
SUBSCRIPTION_GAUGES = {
    "parked": "Messages waiting for the key of a message in flight.",
    "delayed": "Messages waiting for their time.",
    "in_flight": "Messages that handlers are working on.",
    "capacity": "What the mailboxes hold.",
}

Label = tuple[str, ...]


def template(channel: str) -> str:
    """The label of a channel: names that hold an id (inboxes) are one."""
    return "_inbox" if channel.startswith("_inbox.") else channel


class BusCollector(Collector):
    """All the metrics of one or more buses; their names are the label ``bus``."""

    def __init__(self, *buses: MessageBus, channel_label: Callable[[str], str] = template) -> None:
        """``channel_label`` folds channels (and patterns) of unbounded number into one label: its series are sums."""
        names = [bus.name for bus in buses]
        if not names:
            raise TypeError("BusCollector needs at least one bus")
        if len(set(names)) < len(names):
            raise ValueError(f"buses of one collector need different names: MessageBus(name=…); got {', '.join(names)}")
        self._buses = buses
        self._label = channel_label

    def describe(self) -> Iterable[Metric]:
        """The families without samples, so that registering reads no bus."""
        return self._families({}).values()

    def collect(self) -> Iterator[Metric]:
        yield from self._families({bus.name: bus.metrics() for bus in self._buses}).values()

    def _families(self, buses: Mapping[str, BusMetrics]) -> dict[str, Metric]:
        channels: dict[Label, list[ChannelMetrics]] = {}
        subscriptions: dict[Label, list[SubscriptionMetrics]] = {}
        for bus, metrics in buses.items():
            for name, channel in metrics.channels.items():
                channels.setdefault((bus, self._label(name)), []).append(channel)
            for subscription in metrics.subscriptions:
                label = (bus, self._label(subscription.pattern), subscription.group or "")
                subscriptions.setdefault(label, []).append(subscription)
        families = [*_of_channels(channels), *_of_subscriptions(subscriptions), *_of_buses(buses)]
        return {family.name: family for family in families}


def _of_channels(series: Mapping[Label, list[ChannelMetrics]]) -> Iterator[Metric]:
    for name, help in CHANNEL_COUNTERS.items():
        yield _counter(f"{name}_messages", help, CHANNEL, _sums(series, name))
    publish = {label: [item.publish for item in items] for label, items in series.items()}
    yield _histogram("publish", "From the call to the entry into the mailboxes, sampled.", CHANNEL, publish)


def _of_subscriptions(series: Mapping[Label, list[SubscriptionMetrics]]) -> Iterator[Metric]:
    for name, help in SUBSCRIPTION_COUNTERS.items():
        yield _counter(f"{name}_messages", help, SUBSCRIPTION, _sums(series, name))
    for name, help in SUBSCRIPTION_GAUGES.items():
        yield _gauge(f"{name}_messages", help, SUBSCRIPTION, _sums(series, name))
    yield _gauge("waiting_publishers", "Publishers that wait for a slot.", SUBSCRIPTION, _sums(series, "waiting"))
    queued = {(*label, str(rank)): depth for label, items in series.items() for rank, depth in _depths(items).items()}
    yield _gauge("queued_messages", "Messages that could be handled now.", (*SUBSCRIPTION, "priority"), queued)
    wait = {label: [item.wait for item in items] for label, items in series.items()}
    yield _histogram("wait", "From publish (or becoming due) to the handler, sampled.", SUBSCRIPTION, wait)
    handle = {label: [item.handle for item in items] for label, items in series.items()}
    yield _histogram("handle", "The handler's own time, sampled.", SUBSCRIPTION, handle)


def _of_buses(buses: Mapping[str, BusMetrics]) -> Iterator[Metric]:
    late: dict[Label, int] = {(bus,): metrics.late_replies for bus, metrics in buses.items()}
    yield _counter("late_replies", "Replies that came after their request had timed out.", ("bus",), late)
    events: dict[Label, int] = {
        (bus, event): count for bus, metrics in buses.items() for event, count in metrics.transport.items()
    }
    yield _counter("transport_events", "The transport's own counters.", ("bus", "event"), events)
    state: dict[Label, float] = {
        (bus, name): value for bus, metrics in buses.items() for name, value in metrics.transport_state.items()
    }
    yield _gauge("transport_state", "The transport's own gauges.", ("bus", "state"), state)


def _depths(items: list[SubscriptionMetrics]) -> dict[int, int]:
    depths: Counter[int] = Counter()
    for item in items:
        depths.update(item.depth_by_priority)
    return dict(sorted(depths.items()))


def _counter(name: str, help: str, labels: tuple[str, ...], values: Mapping[Label, int]) -> Metric:
    return _filled(CounterMetricFamily(f"neuralcore_{name}", help, labels=labels), values)


def _gauge(name: str, help: str, labels: tuple[str, ...], values: Mapping[Label, float]) -> Metric:
    return _filled(GaugeMetricFamily(f"neuralcore_{name}", help, labels=labels), values)


def _filled(family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[Label, float]) -> Metric:
    for label, value in values.items():
        family.add_metric(label, value)
    return family


def _histogram(name: str, help: str, labels: tuple[str, ...], series: Mapping[Label, list[Latency]]) -> Metric:
    family = HistogramMetricFamily(f"neuralcore_{name}_duration_seconds", help, labels=labels)
    for label, items in series.items():
        total = sum(items, Latency())
        bounds = (*(f"{bound:.10g}" for bound in total.bounds), "+Inf")
        buckets = list(zip(bounds, accumulate(total.buckets), strict=True))
        family.add_metric(label, buckets, sum_value=total.sum_ns * 1e-9)
    return family


def _sums(
    series: Mapping[Label, list[ChannelMetrics]] | Mapping[Label, list[SubscriptionMetrics]], name: str
) -> dict[Label, int]:
    return {label: sum(getattr(item, name) for item in items) for label, items in series.items()}
