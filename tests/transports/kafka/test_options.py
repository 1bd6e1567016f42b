"""URLs: what is wrong is named, with what to do about it, and a password is never shown."""

from __future__ import annotations

import pytest

from neuralcore.messaging.errors import TransportError
from neuralcore.messaging.registry import transport_for
from neuralcore_transports.kafka import KafkaOptions
from neuralcore_transports.kafka.options import _OURS

SECRET = "hunter2"
LOGIN = "security.protocol=SASL_SSL&sasl.mechanism=SCRAM-SHA-512"

RIGHT = [
    ("kafka://", {"hosts": ("localhost:9092",), "prefix": "", "username": None, "password": None}),
    ("kafka://example", {"hosts": ("example:9092",)}),
    ("KAFKA://example", {"hosts": ("example:9092",)}),
    ("kafka://example:7000", {"hosts": ("example:7000",)}),
    ("kafka://a,b:7000,[::1]:7001,[::2]", {"hosts": ("a:9092", "b:7000", "[::1]:7001", "[::2]:9092")}),
    ("kafka:///shop", {"hosts": ("localhost:9092",), "prefix": "shop"}),
    ("kafka://example/shop", {"prefix": "shop"}),
    ("kafka://example/shop/", {"prefix": "shop"}),
    ("kafka://example/my-shop-1", {"prefix": "my-shop-1"}),
    (f"kafka://example/{'x' * 64}", {"prefix": "x" * 64}),
    (f"kafka://ada:s@example?{LOGIN}", {"username": "ada", "password": "s"}),
    ("kafka://ada:s@example?sasl.mechanisms=PLAIN", {"username": "ada", "password": "s"}),
    (f"kafka://ada:@example?{LOGIN}", {"username": "ada", "password": ""}),
    (f"kafka://a%40da:p%40s%2Fs%3A%23%3F%25@example?{LOGIN}", {"username": "a@da", "password": "p@s/s:#?%"}),
    (f"kafka://ada:a:b@example?{LOGIN}", {"password": "a:b"}),
    (f"kafka://ada:a+b@example?{LOGIN}", {"password": "a+b"}),
    (f"kafka://ada:a,b@c,d?{LOGIN}", {"password": "a,b", "hosts": ("c:9092", "d:9092")}),
    ("kafka://example?partitions=16&replication=3", {"partitions": 16, "replication": 3}),
    ("kafka://example", {"partitions": 8, "replication": None, "create": True, "trim": True, "instance": None}),
    ("kafka://example?lease=0.5&dedup_window=60&handover=1e-1", {"lease": 0.5, "dedup_window": 60.0, "handover": 0.1}),
    ("kafka://example?timeout=3&patience=.5&upkeep=7", {"timeout": 3.0, "patience": 0.5, "upkeep": 7.0}),
    ("kafka://example?prefetch=1&inboxes=2&dedup_count=3", {"prefetch": 1, "inboxes": 2, "dedup_count": 3}),
    ("kafka://example?instance=till-3", {"instance": "till-3"}),
    *((f"kafka://example?create={text}", {"create": True}) for text in ("yes", "true", "on", "1", "Yes", "TRUE")),
    *((f"kafka://example?trim={text}", {"trim": False}) for text in ("no", "false", "off", "0", "No", "FALSE")),
]


@pytest.mark.parametrize(("url", "expected"), RIGHT)
def test_a_right_url(url, expected):
    options = KafkaOptions.from_url(url)
    assert {name: getattr(options, name) for name in expected} == expected


WRONG = [
    ("kafka://example#0", "no fragment: write a # in a password as %23"),
    ("kafka://ada@example", "credentials are written as user:password@"),
    ("kafka://:s@example", "credentials are written as user:password@"),
    ("kafka://ada:s@example", r"with a user wants .*sasl\.mechanism=, as in \?security\.protocol=SASL_SSL"),
    ("kafka://ada:s@example?security.protocol=SASL_SSL", r"sasl\.mechanism="),
    ("kafka://example:port", "the port of 'example' is no number from 0 to 65535"),
    ("kafka://example:70000", "the port of 'example'"),
    ("kafka://example:-1", "the port of 'example'"),
    ("kafka://:9092", "'' is no host:port"),
    ("kafka://a,,b", "'' is no host:port"),
    ("kafka://[::1", "brackets"),
    ("kafka://[example]", "brackets"),
    ("kafka://[::1],b]", "brackets"),
    ("kafka://example/a/b", "prefix of at most 64 letters, digits and dashes, .*got 'a/b'"),
    ("kafka://example/a_b", "got 'a_b'"),
    ("kafka://example/a.b", "got 'a.b'"),
    ("kafka://example/caf%C3%A9", "got 'café'"),
    (f"kafka://example/{'x' * 65}", "prefix of at most 64"),
    ("kafka://example?leese=1", "no option 'leese'; it has lease, .*and passes on what has a dot in its name"),
    ("kafka://example?database=1", "no option 'database'"),
    ("kafka://example?lease=soon", "a number of seconds for 'lease'; got 'soon'"),
    ("kafka://example?lease=", "a number of seconds for 'lease'; got ''"),
    ("kafka://example?lease=5&lease=6", "'lease' twice"),
    ("kafka://example?ssl.ca.location=a&ssl.ca.location=b", r"'ssl\.ca\.location' twice"),
    *(
        (f"kafka://example?{name}={value}", f"positive number of seconds for '{name}'")
        for name in ("lease", "dedup_window", "timeout", "patience", "handover", "upkeep")
        for value in ("0", "-1", "nan", "inf", "1e6")
    ),
    *(
        (f"kafka://example?{name}={value}", f"at least 1 for '{name}'")
        for name in ("partitions", "replication", "prefetch", "inboxes", "dedup_count")
        for value in ("0", "-1")
    ),
    ("kafka://example?partitions=1.5", "a whole number for 'partitions'; got '1.5'"),
    ("kafka://example?partitions=", "a whole number for 'partitions'; got ''"),
    ("kafka://example?create=maybe", "yes or no for 'create'; got 'maybe'"),
    ("kafka://example?trim=", "yes or no for 'trim'; got ''"),
]


@pytest.mark.parametrize(("url", "says"), WRONG)
def test_a_wrong_url(url, says):
    with pytest.raises(TransportError, match=says):
        KafkaOptions.from_url(url)


# Of the client library


def test_what_has_a_dot_in_its_name_is_passed_on_as_it_is():
    url = "kafka://example/shop?security.protocol=SSL&ssl.ca.location=%2Fetc%2Fca.pem&client.rack=&lease=3"
    options = KafkaOptions.from_url(url)
    assert options.settings == {
        "security.protocol": "SSL",
        "ssl.ca.location": "/etc/ca.pem",
        "client.rack": "",
    }
    assert options.lease == 3.0


@pytest.mark.parametrize(
    "given",
    ["isolation.level=read_uncommitted", "enable.partition.eof=false", "partitioner=random",
     "delivery.report.only.error=true", "queuing.strategy=lifo", "transaction.timeout.ms=5", "auto.commit.enable=true"],
)  # fmt: skip
def test_what_would_break_a_promise_is_refused(given):
    with pytest.raises(TransportError, match=f"does not pass on '{given.partition('=')[0]}': "):
        KafkaOptions.from_url(f"kafka://example?{given}")


@pytest.mark.parametrize("name", sorted(_OURS))
def test_what_the_transport_decides_itself_is_refused_with_the_reason(name):
    with pytest.raises(TransportError) as caught:
        KafkaOptions(settings={name: "1"})
    assert repr(name) in str(caught.value)
    assert _OURS[name] in str(caught.value)


@pytest.mark.parametrize("name", sorted(name for name in _OURS if "." in name))
def test_also_in_a_url(name):
    with pytest.raises(TransportError) as caught:
        KafkaOptions.from_url(f"kafka://example?{name}=1")
    assert _OURS[name] in str(caught.value)


@pytest.mark.parametrize("name", ["acks", "log_level"])
def test_also_if_it_has_no_dot_in_its_name(name):
    with pytest.raises(TransportError) as caught:
        KafkaOptions.from_url(f"kafka://example?{name}=1")
    assert _OURS[name] in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"prefix": "a_b"},
        {"lease": 0.0},
        {"upkeep": float("nan")},
        {"partitions": 0},
        {"replication": 0},
        {"settings": {"group.id": "x"}},
        {"username": "ada", "password": SECRET},
    ],
)
def test_what_is_wrong_in_a_url_is_wrong_without_one(given):
    with pytest.raises(TransportError):
        KafkaOptions(**given)


# What somebody writes who does not quote the password, or forgets the host.
SECRETS = [
    f"kafka://ada:{SECRET}@example:port",
    f"kafka://ada:{SECRET}@example/a_b?{LOGIN}",
    f"kafka://ada:{SECRET}@example?lease=soon",
    f"kafka://ada:{SECRET}@example?leese=1",
    f"kafka://ada:{SECRET}@example",
    f"kafka://ada:{SECRET}@a,,b",
    f"kafka://ada:{SECRET}@[::1",
    f"kafka://ada:{SECRET}@example#x",
    f"kafka://ada:{SECRET}@ex℀mple",
    f"kafka://ada:{SECRET}℀@example",
    f"kafka://ada:{SECRET}",
    f"kafka://{SECRET}@example",
    f"kafka://:{SECRET}@example",
    f"kafka://ada:{SECRET}/x@example/shop",
    f"kafka://ada:x/{SECRET}@example/shop",
    f"kafka://ada:1/{SECRET}@example/shop",
    f"kafka://ada:{SECRET}?x@example/shop",
    f"kafka://ada:1?{SECRET}@example/shop",
    f"kafka://ada:1?lease={SECRET}@example/shop",
    f"kafka://ada:1?{SECRET}&x@example/shop",
    f"kafka://ada:1@?{SECRET}@example/shop",
    f"kafka://ada:1#{SECRET}@example/shop",
    f"kafka://ada:[{SECRET}@example",
    f"kafka://ada:x,{SECRET}",
    f"kafka://ada:x,b:{SECRET}",
    f"kafka://example?sasl.password={SECRET}&lease=soon",
    f"kafka://example?sasl.password={SECRET}&sasl.password={SECRET}",
    f"kafka://example?sasl.password={SECRET}&group.id=x",
    f"kafka://example?group.id={SECRET}",
]


@pytest.mark.parametrize("url", SECRETS)
def test_no_error_shows_the_password(url):
    with pytest.raises(TransportError) as caught:
        transport_for(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in f"{error} {error!r}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_an_at_sign_behind_the_host_is_told_how_to_be_written():
    with pytest.raises(TransportError, match=r"%2F.*%3F.*%40"):
        KafkaOptions.from_url("kafka://ada:x/y@example/shop")


def test_no_text_shows_the_password():
    url = f"kafka://ada:{SECRET}@a:7000,b/shop?{LOGIN}&ssl.key.password={SECRET}"
    options = KafkaOptions.from_url(url)
    assert options.password == SECRET
    assert options.settings["ssl.key.password"] == SECRET
    assert SECRET not in repr(options)
    assert options.shown == "a:7000,b:9092"
