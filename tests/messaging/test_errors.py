import copy
import pickle
import re

import pytest

from neuralcore.messaging import errors
from neuralcore.messaging.errors import (
    AlreadySettled,
    BadHandler,
    BusError,
    ChannelConflict,
    ChannelError,
    ChannelFull,
    Closed,
    DecodeError,
    EncodeError,
    Forked,
    HandlerError,
    HandlerTimeout,
    InvalidChannelName,
    LeaseLost,
    LoopClosed,
    MissingExtra,
    NeuralCoreError,
    NoSubscribers,
    NotARequest,
    NotStarted,
    NotStored,
    PayloadTooLarge,
    PriorityOutOfRange,
    PublishError,
    PublishManyFailed,
    PublishUnknown,
    RequestError,
    RequestFailed,
    RequestTimeout,
    SettlementError,
    TransactionUnknown,
    TransportError,
    Unavailable,
    UnknownChannel,
    UnknownScheme,
    Unsupported,
    WouldDeadlock,
)

SAMPLES: list[tuple[NeuralCoreError, dict[str, object], tuple[str, ...]]] = [
    (NotStarted("the bus"), {"what": "the bus"}, ("not started", "await bus.start()")),
    (Closed("the bus"), {"what": "the bus"}, ("closed", "new one")),
    (LoopClosed("the bus"), {"what": "the bus"}, ("event loop", "closed")),
    (InvalidChannelName("a..b", "it is odd"), {"name": "a..b", "reason": "it is odd"}, ("'a..b'", "it is odd")),
    (
        UnknownChannel("ordres", ["orders"]),
        {"channel": "ordres", "near": ("orders",)},
        ("'ordres'", "did you mean 'orders'?", "create_channel()"),
    ),
    (UnknownChannel("x"), {"channel": "x", "near": ()}, ("'x'", "create_channel()")),
    (
        ChannelConflict("a", ["capacity is fixed", "so is overflow"]),
        {"channel": "a", "reasons": ("capacity is fixed", "so is overflow")},
        ("'a'", "capacity is fixed; so is overflow"),
    ),
    (ChannelFull("a"), {"channel": "a", "message": None}, ("'a'", "full", "capacity")),
    (WouldDeadlock("a"), {"channel": "a", "message": None}, ("'a'", "wait for itself")),
    (NoSubscribers("a"), {"channel": "a"}, ("'a'", "mandatory=True")),
    (PriorityOutOfRange(256), {"priority": 256}, ("256", "0", "255")),
    (PayloadTooLarge("a", 11, 10), {"channel": "a", "size": 11, "limit": 10}, ("11 bytes", "limit of 10", "'a'")),
    (PublishUnknown("00ff"), {"id": "00ff"}, ("00ff", "message_id='00ff'")),
    (TransactionUnknown(["a", "b"], "no"), {"ids": ("a", "b"), "reason": "no"}, ("2 messages", "no")),
    (EncodeError("text/x", "no"), {"content_type": "text/x", "reason": "no"}, ("text/x", "no")),
    (
        BadHandler("it is bad", "app.handle"),
        {"reason": "it is bad", "handler": "app.handle"},
        ("app.handle", "it is bad"),
    ),
    (BadHandler("they differ"), {"reason": "they differ", "handler": None}, ("they differ",)),
    (HandlerTimeout("app.handle", 1.5), {"handler": "app.handle", "timeout": 1.5}, ("app.handle", "1.5 s")),
    (DecodeError("text/x", "no"), {"content_type": "text/x", "reason": "no"}, ("text/x", "no")),
    (RequestTimeout("a", 0.25), {"channel": "a", "timeout": 0.25}, ("'a'", "0.25 s")),
    (RequestFailed("ValueError", "bad"), {"type": "ValueError", "text": "bad"}, ("ValueError: bad",)),
    (NotARequest("a", "00ff"), {"channel": "a", "id": "00ff"}, ("00ff", "'a'", "reply_to")),
    (AlreadySettled("a", "00ff"), {"channel": "a", "id": "00ff"}, ("00ff", "'a'", "settled")),
    (LeaseLost("a", "00ff"), {"channel": "a", "id": "00ff"}, ("00ff", "'a'", "lease_lost")),
    (
        UnknownScheme("redis", ["memory", "native"], "pip install x"),
        {"scheme": "redis", "installed": ("memory", "native"), "pip": "pip install x"},
        ("redis://", "memory, native", "pip install x"),
    ),
    (
        UnknownScheme("zmq"),
        {"scheme": "zmq", "installed": (), "pip": None},
        ("zmq://", "none", "neuralcore.transports"),
    ),
    (
        MissingExtra("redis", "pip install x"),
        {"package": "redis", "pip": "pip install x"},
        ("'redis'", "pip install x"),
    ),
    (
        Unsupported("browse", ["sqlite"], "channel 'a'"),
        {"capability": "browse", "transports": ("sqlite",), "detail": "channel 'a'"},
        ("browse", "sqlite", "channel 'a'"),
    ),
    (NotStored("sqlite", "no room"), {"transport": "sqlite", "reason": "no room"}, ("sqlite", "no room")),
    (Forked("the bus"), {"what": "the bus"}, ("the bus", "forked", "make a new one")),
    (Unavailable("redis", "refused"), {"transport": "redis", "reason": "refused"}, ("redis", "refused")),
]

FAMILIES = {
    BusError: {NotStarted, Closed, LoopClosed, Forked},
    ChannelError: {InvalidChannelName, UnknownChannel, ChannelConflict},
    PublishError: {
        ChannelFull,
        NoSubscribers,
        PriorityOutOfRange,
        PayloadTooLarge,
        PublishUnknown,
        TransactionUnknown,
        PublishManyFailed,
        EncodeError,
    },
    HandlerError: {BadHandler, HandlerTimeout, DecodeError},
    RequestError: {RequestTimeout, RequestFailed, NotARequest},
    SettlementError: {AlreadySettled, LeaseLost},
    TransportError: {UnknownScheme, MissingExtra, Unsupported, Unavailable},
}


def _id(value: object) -> str | None:
    return type(value).__name__ if isinstance(value, NeuralCoreError) else None


@pytest.mark.parametrize(("error", "fields", "said"), SAMPLES, ids=_id)
def test_it_carries_its_fields_and_says_them(
    error: NeuralCoreError, fields: dict[str, object], said: tuple[str, ...]
) -> None:
    assert vars(error) == fields
    for part in said:
        assert part in str(error)


@pytest.mark.parametrize(("error", "fields", "said"), SAMPLES, ids=_id)
@pytest.mark.parametrize("clone", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_it_survives_pickling_and_copying(clone, error: NeuralCoreError, fields, said) -> None:
    twin = clone(error)
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert vars(twin) == fields
    assert twin.args == error.args


def test_the_tree_is_the_one_drawn() -> None:
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    assert sorted([*drawn, "NeuralCoreError"]) == errors.__all__
    for family, members in FAMILIES.items():
        assert family.__bases__ == (NeuralCoreError,)
        own = {each for each in family.__subclasses__() if each.__module__ == errors.__name__}
        assert own == members  # transports have errors of their own
    assert ChannelFull.__subclasses__() == [WouldDeadlock]
    assert set(NeuralCoreError.__subclasses__()) == set(FAMILIES)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (InvalidChannelName, ValueError),
        (PriorityOutOfRange, ValueError),
        (BadHandler, TypeError),
        (HandlerTimeout, TimeoutError),
        (RequestTimeout, TimeoutError),
    ],
)
def test_callers_may_catch_the_builtin(error: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(error, builtin)


def test_every_error_has_a_sample() -> None:
    families = {NeuralCoreError, *FAMILIES}
    leaves = {getattr(errors, name) for name in errors.__all__} - families
    assert {type(error) for error, _, _ in SAMPLES} == leaves - {PublishManyFailed}


def test_channel_full_hands_the_message_back_but_does_not_pickle_it() -> None:
    message = object()
    error = ChannelFull("a", message)  # type: ignore[arg-type]
    assert error.message is message
    assert pickle.loads(pickle.dumps(error)).message is None


def test_publish_many_failed_names_the_first_failure_by_index() -> None:
    failures = {3: ValueError("later"), 1: KeyError("first")}
    error = PublishManyFailed(["id0", None, "id2", None], failures)
    assert error.results == ("id0", None, "id2", None)
    assert error.errors == failures
    assert str(error) == "2 of 4 messages were not published; the first is item 1: KeyError: 'first'"
    twin = pickle.loads(pickle.dumps(error))
    assert twin.results == error.results
    assert {index: repr(e) for index, e in twin.errors.items()} == {3: "ValueError('later')", 1: "KeyError('first')"}


def test_a_long_name_is_shortened_in_the_message_only() -> None:
    error = InvalidChannelName("x" * 10_000, "it is long")
    assert len(str(error)) < 150
    assert error.name == "x" * 10_000


def test_notes_and_causes_survive_pickling_where_python_keeps_them() -> None:
    error = Closed("the bus")
    error.__notes__ = ["while testing"]  # type: ignore[attr-defined]
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["while testing"]
