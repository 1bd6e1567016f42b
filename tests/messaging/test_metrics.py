import dataclasses
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralcore._core import HISTOGRAM_BOUNDS_NS, Histogram, MailboxStats, RouteStats
from neuralcore.messaging.metrics import BusMetrics, ChannelMetrics, Latency, SubscriptionMetrics

BUCKETS = len(HISTOGRAM_BOUNDS_NS) + 1


def histogram(*samples_ns: int) -> Histogram:
    buckets = [0] * BUCKETS
    for sample in samples_ns:
        buckets[sum(sample > bound for bound in HISTOGRAM_BOUNDS_NS)] += 1
    return Histogram(len(samples_ns), sum(samples_ns), tuple(buckets))


EMPTY = histogram()


def mailbox_stats(**fields: int) -> MailboxStats:
    zero = {name: 0 for name in MailboxStats._fields if name not in ("wait", "handle")}
    return MailboxStats(**{**zero, **fields}, wait=histogram(150), handle=histogram(10_000, 20_000))


def test_the_bounds_go_from_100_ns_to_10_s() -> None:
    assert (HISTOGRAM_BOUNDS_NS[0], HISTOGRAM_BOUNDS_NS[-1], len(HISTOGRAM_BOUNDS_NS)) == (100, 10_000_000_000, 25)
    assert Latency().bounds[0] == pytest.approx(1e-7)
    assert Latency().bounds[-1] == pytest.approx(10)


def test_without_samples_there_is_no_latency() -> None:
    for latency in (Latency(), Latency.of(EMPTY)):
        assert latency.count == 0
        assert latency.mean is None
        assert latency.quantile(0.5) is None


def test_a_quantile_is_interpolated_in_its_bucket() -> None:
    # Ten samples between 100 and 250 ns: half of them are taken to be below the middle.
    latency = Latency.of(histogram(*range(110, 210, 10)))
    assert latency.quantile(0) == pytest.approx(100e-9)
    assert latency.quantile(0.5) == pytest.approx(175e-9)
    assert latency.quantile(1) == pytest.approx(250e-9)


def test_a_quantile_passes_over_empty_buckets() -> None:
    latency = Latency.of(histogram(50, 50, 50, 2_000_000))
    assert latency.quantile(0.75) == pytest.approx(100e-9)
    assert 1e-3 < (latency.quantile(0.76) or 0) <= 2.5e-3
    assert latency.mean == pytest.approx((150 + 2_000_000) / 4 * 1e-9)


def test_beyond_the_last_bound_it_says_the_bound() -> None:
    assert Latency.of(histogram(10**12)).quantile(0.5) == pytest.approx(10)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_a_quantile_outside_0_and_1(p: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Latency().quantile(p)


@given(st.lists(st.integers(0, 10**10), min_size=1, max_size=60), st.floats(0, 1))
def test_a_quantile_is_within_one_bucket_of_the_truth(samples: list[int], p: float) -> None:
    estimate = Latency.of(histogram(*samples)).quantile(p)
    assert estimate is not None
    rank = max(0, min(len(samples) - 1, -int(-p * len(samples) // 1) - 1))
    truth = sorted(samples)[rank]
    bounds = (0, *HISTOGRAM_BOUNDS_NS)
    index = sum(truth > bound for bound in HISTOGRAM_BOUNDS_NS)
    assert bounds[index] * 1e-9 * 0.999 <= estimate <= bounds[index + 1] * 1e-9 * 1.001


@given(st.lists(st.integers(0, 10**11), min_size=1, max_size=60))
def test_quantiles_never_fall(samples: list[int]) -> None:
    latency = Latency.of(histogram(*samples))
    quantiles = [latency.quantile(p / 20) or 0 for p in range(21)]
    assert quantiles == sorted(quantiles)


def test_latencies_add_up() -> None:
    samples = [random.Random(1).randrange(10**9) for _ in range(50)]
    both = Latency.of(histogram(*samples[:20])) + Latency.of(histogram(*samples[20:]))
    assert both == Latency.of(histogram(*samples))


def bus_metrics() -> BusMetrics:
    route = RouteStats(published=7, unrouted=2, dropped=1, refused=3, publish=histogram(500, 600))
    return BusMetrics(
        channels={"b": ChannelMetrics.of(route), "a": ChannelMetrics(published=1, publish=Latency.of(histogram(700)))},
        subscriptions=(
            SubscriptionMetrics.of(
                mailbox_stats(
                    capacity=9, queued=3, parked=1, delayed=2, in_flight=4, waiting=5, delivered=20, acked=15
                ),
                {75: 1, 0: 2},
                pattern="a.*",
                name="work",
                group="g",
                dead_lettered=6,
            ),
            SubscriptionMetrics.of(
                mailbox_stats(queued=1, retried=8, released=9, dropped=10, expired=11), {0: 1}, pattern="b"
            ),
        ),
        late_replies=12,
        transport={"reconnects": 1},
    )


def test_totals_are_the_sums() -> None:
    metrics = bus_metrics()
    totals = {
        "published": 8,
        "unrouted": 2,
        "refused": 3,
        "delivered": 20,
        "acked": 15,
        "retried": 8,
        "released": 9,
        "dead_lettered": 6,
        "dropped": 10,
        "expired": 11,
        "in_flight": 4,
        "depth": 7,
        "late_replies": 12,
    }
    assert {name: getattr(metrics, name) for name in totals} == totals
    assert metrics.depth_by_priority == {0: 3, 75: 1}
    assert metrics.publish == Latency.of(histogram(500, 600, 700))
    assert metrics.wait == Latency.of(histogram(150, 150))
    assert metrics.handle.count == 4


def test_a_subscription_copies_every_figure_of_its_mailbox() -> None:
    fields = {name: number for number, name in enumerate(MailboxStats._fields) if name not in ("wait", "handle")}
    subscription = SubscriptionMetrics.of(mailbox_stats(**fields), {}, pattern="a")
    assert {name: getattr(subscription, name) for name in fields} == fields
    assert subscription.depth == fields["queued"] + fields["parked"] + fields["delayed"]


def test_the_snapshot_is_immutable() -> None:
    metrics = bus_metrics()
    with pytest.raises(dataclasses.FrozenInstanceError):
        metrics.late_replies = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        metrics.channels["a"] = ChannelMetrics()  # type: ignore[index]
    with pytest.raises(TypeError):
        metrics.subscriptions[0].depth_by_priority[5] = 1  # type: ignore[index]


def test_the_snapshot_does_not_follow_what_it_was_made_of() -> None:
    channels, depths = {"a": ChannelMetrics()}, {1: 1}
    metrics = BusMetrics(channels=channels)
    subscription = SubscriptionMetrics(pattern="a", depth_by_priority=depths)
    channels["b"] = ChannelMetrics()
    depths[2] = 1
    assert list(metrics.channels) == ["a"]
    assert dict(subscription.depth_by_priority) == {1: 1}


def test_names_and_priorities_are_in_order() -> None:
    metrics = bus_metrics()
    assert list(metrics.channels) == ["a", "b"]
    assert list(metrics.subscriptions[0].depth_by_priority) == [0, 75]


def test_to_dict_is_json_and_complete() -> None:
    plain = bus_metrics().to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["totals"]["published"] == 8
    assert plain["totals"]["depth_by_priority"] == {"0": 3, "75": 1}
    assert plain["totals"]["handle"]["count"] == 4
    assert plain["channels"]["b"]["refused"] == 3
    assert plain["channels"]["b"]["publish"]["p99"] == pytest.approx(990e-9)
    first = plain["subscriptions"][0]
    assert (first["pattern"], first["group"], first["depth"], first["dead_lettered"]) == ("a.*", "g", 6, 6)
    assert len(first["wait"]["buckets"]) == BUCKETS
    assert plain["transport"] == {"reconnects": 1}


def test_an_empty_bus_has_empty_metrics() -> None:
    metrics = BusMetrics()
    assert metrics.published == metrics.depth == 0
    assert metrics.publish == Latency()
    assert json.dumps(metrics.to_dict())
