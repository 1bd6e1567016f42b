"""URLs: what is wrong is named, with what to do about it, and a password is never shown."""

from __future__ import annotations

import pytest

from neuralcore.messaging.errors import TransportError
from neuralcore.messaging.registry import transport_for
from neuralcore_transports.redis import RedisOptions

SECRET = "hunter2"

RIGHT = [
    ("redis://", {"hosts": (("localhost", 6379),), "tls": False, "cluster": False, "database": 0}),
    ("redis://example", {"hosts": (("example", 6379),)}),
    ("redis://example:7000/3", {"hosts": (("example", 7000),), "database": 3}),
    ("redis://example/?database=3", {"database": 3}),
    ("redis://[::1]:7000/", {"hosts": (("::1", 7000),)}),
    ("REDIS://example", {"hosts": (("example", 6379),)}),
    ("rediss://example", {"tls": True, "cluster": False}),
    ("redis+cluster://a,b:7000,[::1]:7001", {"cluster": True, "hosts": (("a", 6379), ("b", 7000), ("::1", 7001))}),
    ("redis+cluster://a/0", {"cluster": True, "database": 0}),
    ("rediss+cluster://a", {"tls": True, "cluster": True}),
    ("redis+unix:///run/redis.sock?database=2", {"socket": "/run/redis.sock", "database": 2, "tls": False}),
    ("redis+unix:///run/my%20redis.sock", {"socket": "/run/my redis.sock"}),
    ("redis+unix:///run/a@b.sock", {"socket": "/run/a@b.sock"}),
    ("redis+unix://ada:s@/run/redis.sock", {"socket": "/run/redis.sock", "username": "ada", "password": "s"}),
    ("redis://:s@example", {"username": None, "password": "s"}),
    ("redis://ada:s@example", {"username": "ada", "password": "s"}),
    ("redis://a%40da:p%40s%2Fs%3A%23%3F%25@example", {"username": "a@da", "password": "p@s/s:#?%"}),
    ("redis://ada:a:b@example", {"password": "a:b"}),
    ("redis://ada:a+b@example", {"password": "a+b"}),
    ("redis://example?prefix=my-bus.1_x", {"prefix": "my-bus.1_x"}),
    ("redis://example?durability=disk&replicas=2", {"durability": "disk", "replicas": 2}),
    ("redis://example?lease=0.5&max_hold=60&dedup_window=5", {"lease": 0.5, "max_hold": 60.0, "dedup_window": 5.0}),
    ("redis://example?session_ttl=9&timeout=1e-1&patience=3&poll=.5", {"timeout": 0.1, "patience": 3.0, "poll": 0.5}),
]


@pytest.mark.parametrize(("url", "expected"), RIGHT)
def test_a_right_url(url, expected):
    options = RedisOptions.from_url(url)
    assert {name: getattr(options, name) for name in expected} == expected


WRONG = [
    ("http://example", "begins with redis, rediss, .*; got 'http'"),
    ("redis://example#0", "no fragment: write a # in a password as %23"),
    ("redis://ada@example", "credentials are written as user:password@, or :password@ for the default user"),
    ("redis://a,b", r"one host; .* as in redis\+cluster://h1,h2,h3"),
    ("redis://example:port", "port .*'example' .*number"),
    ("redis://example:70000", "port .*'example'"),
    ("redis://:6379", "is no host:port"),
    ("redis+cluster://a,,b", "'' is no host:port"),
    ("redis://[::1", "brackets"),
    ("redis://example/zero", "number of a database, as in redis://host/0; got 'zero'"),
    ("redis://example/0/1", "got '0/1'"),
    ("redis://example/1?database=2", "'database' twice"),
    ("redis://example?database=-1", "no negative"),
    ("redis://example?database=first", "a whole number for 'database'; got 'first'"),
    ("redis+cluster://example/1", "one database only, number 0"),
    ("redis+unix://", r"as in redis\+unix:///run/redis/redis.sock"),
    ("redis+unix://run/redis.sock", r"as in redis\+unix:///run/redis/redis.sock"),
    ("redis://example?leese=1", "no option 'leese'; it has lease, max_hold"),
    ("redis://example?lease=soon", "a number of seconds for 'lease'; got 'soon'"),
    ("redis://example?lease=", "a number of seconds for 'lease'; got ''"),
    ("redis://example?lease=0.4", r"a lease of at least 0\.5 s; got 0\.4"),
    ("redis://example?lease=5&lease=6", "'lease' twice"),
    *(
        (f"redis://example?{name}={value}", f"positive number of seconds for '{name}'")
        for name in ("lease", "max_hold", "dedup_window", "session_ttl", "timeout", "patience", "poll")
        for value in ("0", "-1", "nan", "inf")
    ),
    ("redis://example?replicas=1.5", "a whole number for 'replicas'; got '1.5'"),
    ("redis://example?replicas=-1", "no negative"),
    ("redis://example?durability=full", "durabilities server, disk; got 'full'"),
    ("redis://example?prefix=", "64 letters, digits, dots, dashes and underscores; got ''"),
    ("redis://example?prefix=a:b", "got 'a:b'"),
    ("redis://example?prefix={a}", "got '{a}'"),
    (f"redis://example?prefix={'x' * 65}", "prefix of at most 64"),
    ("rediss://example?tls_key=/dev/null", "tls_cert= beside tls_key="),
    ("redis://example?tls_ca=/dev/null", "rediss://"),
    ("redis://example?tls_cert=/dev/null", "rediss://"),
    ("redis+cluster://example?tls_ca=/dev/null", r"rediss\+cluster://"),
    ("redis+unix:///run/redis.sock?tls_ca=/dev/null", "unix socket"),
    ("rediss://example?tls_ca=", "a file for 'tls_ca'"),
    ("rediss://example?tls_ca=/no/ca.pem", "'tls_ca'.* '/no/ca.pem'"),
    ("rediss://example?tls_cert=/no/cert.pem", "'tls_cert'.* '/no/cert.pem'"),
]


@pytest.mark.parametrize(("url", "says"), WRONG)
def test_a_wrong_url(url, says):
    with pytest.raises(TransportError, match=says):
        RedisOptions.from_url(url)


# What somebody writes who does not quote the password, or forgets the host.
SECRETS = [
    f"redis://ada:{SECRET}@example:port",
    f"redis://ada:{SECRET}@example/zero",
    f"redis://ada:{SECRET}@example?lease=soon",
    f"redis://ada:{SECRET}@a,b",
    f"redis://ada:{SECRET}@[::1",
    f"redis://ada:{SECRET}@example#x",
    f"redis://ada:{SECRET}@ex℀mple",
    f"redis://ada:{SECRET}℀@example",
    f"redis://ada:{SECRET}",
    f"redis://{SECRET}@example",
    f"redis://ada:{SECRET}/x@example/0",
    f"redis://ada:x/{SECRET}@example/0",
    f"redis://ada:1/{SECRET}@example/0",
    f"redis://ada:{SECRET}?x@example/0",
    f"redis://ada:1?{SECRET}@example/0",
    f"redis://ada:1?lease={SECRET}@example/0",
    f"redis://ada:1?{SECRET}&x@example/0",
    f"redis://ada:1@?{SECRET}@example/0",
    f"redis://ada:1#{SECRET}@example/0",
    f"redis://ada:[{SECRET}@example",
    f"redis+cluster://ada:{SECRET}@a,b:c",
    f"redis+cluster://ada:x,{SECRET}",
    f"redis+unix://:{SECRET}/x@/run/redis.sock",
    f"redis+unix://:x/{SECRET}@/run/redis.sock",
    f"redis+unix://:{SECRET}@",
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
        RedisOptions.from_url("redis://ada:x/y@example/0")


@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+cluster", "rediss+cluster"])
def test_no_text_shows_the_password(scheme):
    options = RedisOptions.from_url(f"{scheme}://ada:{SECRET}@example:7000")
    assert options.password == SECRET
    assert SECRET not in repr(options)
    assert SECRET not in options.shown
    assert options.shown.endswith("example:7000")


def test_where_a_socket_is_is_shown():
    assert RedisOptions.from_url("redis+unix://:x@/run/redis.sock").shown == "/run/redis.sock"
