import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neuralcore.messaging.ndarray import decode_array, encode_array

DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(),
    hnp.unsigned_integer_dtypes(),
    hnp.floating_dtypes(sizes=(16, 32, 64)),
    hnp.complex_number_dtypes(sizes=(64, 128)),
    hnp.datetime64_dtypes(),
    hnp.timedelta64_dtypes(),
    hnp.unicode_string_dtypes(),
    hnp.byte_string_dtypes(),
)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@given(
    array=DTYPES.flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    ),
    layout=st.sampled_from(["C", "F", "strided", "reversed"]),
)
def test_every_plain_array_arrives_intact(array: np.ndarray, layout: str) -> None:
    if layout == "F":
        array = np.asfortranarray(array) if array.ndim else array
    elif layout == "strided" and array.ndim:
        array = np.repeat(array, 2, axis=-1)[..., ::2]
    elif layout == "reversed" and array.ndim:
        array = array[::-1]
    twin = decode_array(encode_array(array))
    assert _same(twin, array)


def test_the_wire_format_is_pinned() -> None:
    body = encode_array(np.array([[1, 2, 3]], dtype="<i2"))
    assert body == b"NCA1C\x02\x03<i2" + struct.pack("<QQ", 1, 3) + bytes(6) + struct.pack("<3h", 1, 2, 3)
    assert len(body) % 16 == 6


def test_fortran_order_is_kept() -> None:
    twin = decode_array(encode_array(np.asfortranarray(np.arange(6.0).reshape(2, 3))))
    assert twin.flags.f_contiguous
    assert not twin.flags.c_contiguous
    assert twin.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_decoding_copies_nothing_and_the_view_is_read_only() -> None:
    body = encode_array(np.arange(1000.0))
    twin = decode_array(body)
    assert np.shares_memory(twin, np.frombuffer(body, np.uint8))
    assert twin.flags.aligned
    with pytest.raises(ValueError, match="read-only"):
        twin[0] = 1


def test_an_unaligned_body_is_copied_into_place() -> None:
    body = encode_array(np.arange(10.0))
    twin = decode_array(memoryview(b"x" + body)[1:])
    assert twin.flags.aligned
    assert twin.tolist() == list(range(10))
    assert not twin.flags.writeable


@pytest.mark.parametrize(
    "array",
    [
        np.array([object()]),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array([b"ab"], dtype="V2"),
        np.array([1.0], dtype=np.longdouble),
    ],
    ids=["object", "structured", "void", "longdouble"],
)
def test_other_element_types_are_refused(array: np.ndarray) -> None:
    if array.dtype.itemsize == 8 and array.dtype.kind == "f":
        pytest.skip("long double is double here")
    with pytest.raises(ValueError, match="cannot be sent"):
        encode_array(array)


def test_a_masked_array_is_refused() -> None:
    with pytest.raises(ValueError, match="mask"):
        encode_array(np.ma.MaskedArray([1, 2], mask=[0, 1]))


def _body(dtype: bytes = b"<f8", order: bytes = b"C", shape: tuple[int, ...] = (2,), data: bytes = bytes(16)) -> bytes:
    header = b"NCA1" + order + bytes((len(shape), len(dtype))) + dtype + struct.pack(f"<{len(shape)}Q", *shape)
    return header + bytes(-len(header) % 16) + data


def test_the_forger_writes_what_the_encoder_writes() -> None:
    assert _body() == encode_array(np.zeros(2))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "does not begin"),
        (b"NCA1C", "does not begin"),
        (b"NCA2C\x00\x03<f8", "does not begin"),
        (_body(order=b"K"), "order 'K'"),
        (_body()[:20], "ends inside its header"),
        (_body(shape=(3,)), "24 bytes, but 16 follow"),
        (_body(shape=(1,)), "8 bytes, but 16 follow"),
        (_body(shape=(2**63,)), "impossible shape"),
        (_body(shape=(2**32, 2**32)), "impossible shape"),
        (_body(shape=(0, 2**62, 4), data=b""), "impossible shape"),
        (_body(shape=(0, 2**61), data=b""), "impossible shape"),
        (_body(shape=(2**40,)), "but 16 follow"),
        (_body(shape=(1,) * 33, data=bytes(8)), "33 dimensions"),
        (_body(dtype=b"|O"), "cannot be sent"),
        (_body(dtype=b"|O8"), "cannot be sent"),
        (_body(dtype=b"|V8"), "cannot be sent"),
        (_body(dtype=b"<f16", shape=(1,)), "cannot be sent"),
        (_body(dtype=b"<f3"), "cannot be sent"),
        (_body(dtype=b"f8,i4"), "cannot be sent"),
        (_body(dtype=b"<f8\x00"), "cannot be sent"),
        (_body(dtype=b"\xff\xff\xff"), "ascii"),
        (_body(dtype=b"<U0", data=b""), "no size"),
        (_body(dtype=b"<U999999999"), "element type|follow"),
        (_body(dtype=b"<M8[zz]"), "unknown element type"),
        (_body(dtype=b"|b1", data=b"\x01\x02"), "neither 0 nor 1"),
        (_body(dtype=b"<U1", data=b"\xff" * 8), "beyond Unicode"),
        (_body(dtype=b">U1", data=b"\xff" * 8), "beyond Unicode"),
    ],
)
def test_a_forged_body(body: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode_array(body)


@given(
    dtype=st.one_of(
        st.from_regex(rb"\A[<>|][biufcmMSUVO][0-9]{1,3}\Z"),
        st.from_regex(rb"\A[<>]M8\[[0-9]{0,3}[a-zA-Z]{1,2}\]\Z"),
        st.binary(max_size=8),
    ),
    order=st.sampled_from([b"C", b"F", b"A"]),
    shape=st.lists(st.one_of(st.integers(0, 4), st.integers(0, 2**64 - 1)), max_size=4).map(tuple),
    data=st.binary(max_size=64),
)
def test_no_forgery_raises_anything_but_value_error(
    dtype: bytes, order: bytes, shape: tuple[int, ...], data: bytes
) -> None:
    try:
        array = decode_array(_body(dtype, order, shape, data))
    except ValueError:
        return
    assert array.shape == shape
    assert array.nbytes == len(data)
    array.tobytes()  # not tolist: an empty array may have billions of empty rows


@given(st.data())
def test_a_damaged_body_is_refused_or_read_but_nothing_else(data: st.DataObject) -> None:
    body = bytearray(encode_array(np.arange(6, dtype="<i4").reshape(2, 3)))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.just(len(body)), st.integers(0, len(body))))
    try:
        decode_array(bytes(body[:end])).tolist()
    except ValueError:
        return
