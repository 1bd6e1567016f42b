import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralcore.messaging.nesting import NestingError, check_json, check_msgpack

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.sampled_from(['"', "\\", '\\"', "[[[[", "]}", '\\\\"[', "{", '["']),
    st.binary(max_size=40),
)
WITHOUT_BYTES = SCALARS.filter(lambda value: not isinstance(value, bytes))


def _nested(scalars):
    return st.recursive(
        scalars,
        lambda inner: st.one_of(
            st.lists(inner, max_size=5),
            st.dictionaries(st.text(max_size=5), inner, max_size=5),
            st.lists(inner, min_size=1, max_size=1),
            st.lists(st.floats(allow_nan=False), min_size=12, max_size=20),
            st.lists(st.integers(2**33, 2**34), min_size=12, max_size=20),
        ),
        max_leaves=30,
    )


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def _passes(check, body: bytes, limit: int) -> bool:
    try:
        check(body, limit)
    except NestingError:
        return False
    return True


@given(value=_nested(WITHOUT_BYTES), slack=st.integers(-3, 3), escape=st.booleans())
def test_json_depth_is_exact(value, slack: int, escape: bool) -> None:
    body = json.dumps(value, ensure_ascii=escape, indent=1 if escape else None).encode("utf-8", "replace")
    limit = max(0, _depth(value) + slack)
    assert _passes(check_json, body, limit) is (_depth(value) <= limit)


@given(value=_nested(SCALARS), slack=st.integers(-3, 3))
def test_msgpack_depth_is_exact(value, slack: int) -> None:
    body = msgspec.msgpack.encode(value)
    limit = max(0, _depth(value) + slack)
    assert _passes(check_msgpack, body, limit) is (_depth(value) <= limit)


@given(st.binary(max_size=300), st.integers(0, 5))
def test_noise_makes_no_other_error(body: bytes, limit: int) -> None:
    _passes(check_json, body, limit)
    _passes(check_msgpack, body, limit)


@given(st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b'"', b"\\", b"1", b",", b":"]), max_size=40).map(b"".join))
def test_json_that_the_decoder_takes_is_judged_like_the_decoder_sees_it(body: bytes) -> None:
    try:
        depth = _depth(msgspec.json.decode(body))
    except msgspec.DecodeError:
        return
    assert _passes(check_json, body, depth)
    assert depth == 0 or not _passes(check_json, body, depth - 1)


@pytest.mark.parametrize("levels", [101, 100_000, 2_000_000])
def test_json_bombs(levels: int) -> None:
    with pytest.raises(NestingError, match="deeper than 100"):
        check_json(b"[" * levels + b"]" * levels, 100)
    with pytest.raises(NestingError, match="deeper than 100"):
        check_json(b'{"a":' * levels, 100)


@pytest.mark.parametrize(
    "opening", [b"\x91", b"\x81\xa1a", b"\xdc\x00\x01", b"\xdd\x00\x00\x00\x01", b"\xde\x00\x01\xa1a"]
)
@pytest.mark.parametrize("levels", [101, 100_000])
def test_msgpack_bombs(opening: bytes, levels: int) -> None:
    with pytest.raises(NestingError, match="deeper than 100"):
        check_msgpack(opening * levels + b"\xc0", 100)


@pytest.mark.parametrize(
    "body",
    [
        b"\xdd\xff\xff\xff\xff\x01",
        b"\xdf\x7f\xff\xff\xff\x01",
        b"\xdc\xff\xff" + b"\x01" * 100,
        b"\x91\xdd\xff\xff\xff\xff",
    ],
)
def test_declared_lengths_are_compared_with_what_is_there(body: bytes) -> None:
    with pytest.raises(NestingError, match=r"declares [0-9]+ elements where [0-9]+ bytes are left"):
        check_msgpack(body, 100)


def test_many_containers_side_by_side_are_not_deep() -> None:
    value = [{"a": [1, 2], "b": {"c": []}} for _ in range(1000)]
    check_json(msgspec.json.encode(value), 4)
    check_msgpack(msgspec.msgpack.encode(value), 4)
    with pytest.raises(NestingError):
        check_json(msgspec.json.encode(value), 3)
    with pytest.raises(NestingError):
        check_msgpack(msgspec.msgpack.encode(value), 3)


def test_numbers_that_look_like_containers_are_numbers() -> None:
    body = msgspec.msgpack.encode([float.fromhex("-0x1.9dddddddddddd0p-700")] * 1000 + ["x", [1]])
    check_msgpack(body, 2)
    with pytest.raises(NestingError):
        check_msgpack(body, 1)
