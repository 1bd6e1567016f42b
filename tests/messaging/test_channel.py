import copy
import dataclasses
import pickle

import pytest

from neuralcore.messaging.channel import ChannelConfig, RateLimit, Retention
from neuralcore.messaging.errors import InvalidChannelName, PriorityOutOfRange
from neuralcore.messaging.priority import Priority


def test_the_defaults_leave_everything_to_the_bus() -> None:
    config = ChannelConfig("a")
    assert dataclasses.asdict(config) == {
        "name": "a",
        "priority": Priority.NORMAL,
        "capacity": None,
        "overflow": None,
        "ttl": None,
        "isolate": False,
        "max_payload": None,
        "dead_letter": None,
        "rate_limit": None,
        "retention": None,
        "dedup_window": None,
        "partitions": None,
        "replication": None,
        "create": None,
        "bands": None,
    }


@pytest.mark.parametrize("bands", [(), (0,), (1, 50), (0, 50, 50), (50, 0), (0, 256), [0, 50]])
def test_bands_ascend_from_0(bands: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        ChannelConfig("a", bands=bands)  # type: ignore[arg-type]


def test_a_full_configuration() -> None:
    config = ChannelConfig(
        "a.b",
        priority=255,
        capacity=1,
        overflow="drop_old",
        ttl=0.5,
        isolate=True,
        max_payload=10,
        dead_letter="failed.a",
        rate_limit=RateLimit(100, 10),
        retention=Retention(age=60, count=5, bytes=1000),
        dedup_window=30,
    )
    assert pickle.loads(pickle.dumps(config)) == config == copy.deepcopy(config)
    assert hash(config) == hash(dataclasses.replace(config))


def test_it_is_immutable_and_slotted() -> None:
    config = ChannelConfig("a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.ttl = 1.0  # type: ignore[misc]
    assert not hasattr(config, "__dict__")


def test_only_the_name_is_positional() -> None:
    with pytest.raises(TypeError):
        ChannelConfig("a", 5)  # type: ignore[misc]


def test_a_reserved_channel_may_be_configured() -> None:
    assert ChannelConfig("_dlq.a", retention=Retention(age=60)).name == "_dlq.a"


@pytest.mark.parametrize("dead_letter", [None, False, "_dlq.other", "failed"])
def test_dead_letters_go_somewhere_or_nowhere(dead_letter) -> None:
    assert ChannelConfig("a", dead_letter=dead_letter).dead_letter == dead_letter


@pytest.mark.parametrize("name", ["", "a..b", "a.*"])
def test_a_bad_name(name: str) -> None:
    with pytest.raises(InvalidChannelName):
        ChannelConfig(name)


@pytest.mark.parametrize("priority", [-1, 256, True, 1.5])
def test_a_bad_priority(priority) -> None:
    with pytest.raises(PriorityOutOfRange):
        ChannelConfig("a", priority=priority)


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("capacity", 0, ValueError),
        ("capacity", 1.0, TypeError),
        ("capacity", True, TypeError),
        ("overflow", "explode", ValueError),
        ("ttl", 0, ValueError),
        ("ttl", -1.0, ValueError),
        ("ttl", NAN, ValueError),
        ("ttl", INFINITY, ValueError),
        ("ttl", "1", TypeError),
        ("ttl", True, TypeError),
        ("isolate", 1, TypeError),
        ("max_payload", 0, ValueError),
        ("max_payload", 1.5, TypeError),
        ("dead_letter", True, TypeError),
        ("dead_letter", 0, TypeError),
        ("dead_letter", "a.b", ValueError),
        ("rate_limit", (1, 2), TypeError),
        ("retention", 60, TypeError),
        ("dedup_window", 0, ValueError),
    ],
)
def test_a_bad_field_is_named(field: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"ChannelConfig\.{field} "):
        ChannelConfig("a.b", **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rate", "burst", "field"),
    [(0, 1, "rate"), (-1, 1, "rate"), (NAN, 1, "rate"), (INFINITY, 1, "rate"), (1, 0, "burst"), (1, 0.5, "burst")],
)
def test_a_bad_rate_limit(rate: float, burst: float, field: str) -> None:
    with pytest.raises(ValueError, match=rf"RateLimit\.{field} "):
        RateLimit(rate, burst)


@pytest.mark.parametrize("fields", [{"age": 0}, {"count": 0}, {"bytes": 0}])
def test_a_bad_retention(fields: dict[str, int]) -> None:
    (field,) = fields
    with pytest.raises(ValueError, match=rf"Retention\.{field} "):
        Retention(**fields)


def test_retention_that_limits_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one of age, count and bytes"):
        Retention()
