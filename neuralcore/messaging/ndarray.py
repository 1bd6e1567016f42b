"""NumPy arrays as bytes: a small header, then the elements as they lie in memory.

::

    4 bytes   magic, b"NCA1"
    1 byte    order of the elements: b"C" or b"F"
    1 byte    number of dimensions
    1 byte    length of the element type's name
    n bytes   the element type, as NumPy's array protocol spells it ("<f4")
    8 bytes   per dimension: its length, unsigned, little endian
    0-15      zero bytes, up to a multiple of 16
    rest      the elements

Only types of plain numbers, booleans, times and fixed-length text: nothing that would need pickling. Decoding copies
nothing; the array is a read-only view of the body.
"""

from __future__ import annotations

import math
import re
import struct
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["decode_array", "encode_array", "is_array"]

_MAGIC = b"NCA1"
_ALIGNMENT = 16
_MAX_DIMENSIONS = 32
# Not the platform's long double, whose layout differs between machines.
_DTYPE = re.compile(r"(?:\|[bS]|[<>|][iu]|[<>][fcmMU])(?:[0-9]{1,9})(?:\[[0-9]{0,9}[a-zA-Zμ]{1,2}\])?", re.ASCII)
_SIZES = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8), "c": (8, 16), "m": (8,), "M": (8,)}
_MAX_CODE_POINT = 0x10FFFF


def is_array(value: object) -> bool:
    # Whoever has an array has imported NumPy; this module need not.
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def encode_array(array: npt.NDArray[Any]) -> bytes:
    """Raises ValueError for element types that cannot be sent."""
    import numpy as np

    if isinstance(array, np.ma.MaskedArray):
        raise ValueError("a masked array would lose its mask; send array.filled(...) or data and mask")
    name = array.dtype.str
    _check_dtype(name, array.dtype.names is not None)
    if array.flags.c_contiguous or not array.flags.f_contiguous:
        order, flat = b"C", np.ascontiguousarray(array).reshape(-1)
    else:
        order, flat = b"F", array.T.reshape(-1)
    header = b"".join(
        (
            _MAGIC,
            order,
            bytes((array.ndim, len(name))),
            name.encode("ascii"),
            struct.pack(f"<{array.ndim}Q", *array.shape),
        )
    )
    padding = bytes(-len(header) % _ALIGNMENT)
    return b"".join((header, padding, np.asarray(flat).view(np.uint8).data))


def decode_array(body: bytes | memoryview) -> npt.NDArray[Any]:
    """Raises ValueError for anything that ``encode_array`` would not have written."""
    import numpy as np

    dtype_name, order, shape, start = _header(body)
    dtype = _dtype(dtype_name)
    # NumPy refuses shapes whose product overflows even when one length is 0.
    if math.prod(length or 1 for length in shape) * dtype.itemsize > sys.maxsize:
        raise ValueError(f"impossible shape {shape}")
    count = math.prod(shape)
    if len(body) - start != count * dtype.itemsize:
        size = count * dtype.itemsize
        raise ValueError(f"{dtype_name} elements of shape {shape} take {size} bytes, but {len(body) - start} follow")
    flat = np.frombuffer(body, dtype=np.uint8, offset=start).view(dtype) if count else np.empty(0, dtype)
    _check_values(flat)
    array = flat.reshape(shape, order=order)
    if not array.flags.aligned:
        array = array.copy(order="K")
    array.flags.writeable = False
    return array


def _header(body: bytes | memoryview) -> tuple[str, Any, tuple[int, ...], int]:
    if len(body) < 7 or bytes(body[:4]) != _MAGIC:
        raise ValueError("it does not begin like an array")
    order, dimensions, name_length = chr(body[4]), body[5], body[6]
    if order not in ("C", "F"):
        raise ValueError(f"unknown element order {order!r}")
    if dimensions > _MAX_DIMENSIONS:
        raise ValueError(f"{dimensions} dimensions; {_MAX_DIMENSIONS} are allowed")
    shape_at = 7 + name_length
    header_end = shape_at + 8 * dimensions
    start = header_end + -header_end % _ALIGNMENT
    if len(body) < start:
        raise ValueError("it ends inside its header")
    name = bytes(body[7:shape_at]).decode("ascii")
    shape = struct.unpack_from(f"<{dimensions}Q", body, shape_at)
    return name, order, shape, start


def _check_dtype(name: str, structured: bool = False) -> None:
    found = _DTYPE.fullmatch(name)
    if structured or found is None or _size(name) not in _SIZES.get(name[1], (_size(name),)):
        raise ValueError(
            f"elements of type {name!r} cannot be sent: plain numbers, booleans, times and fixed-length text can"
        )


def _size(name: str) -> int:
    return int(name[2:].partition("[")[0])


def _dtype(name: str) -> np.dtype[Any]:
    import numpy as np

    _check_dtype(name)
    try:
        dtype = np.dtype(name)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"unknown element type {name!r}: {error}") from error
    if dtype.itemsize == 0:
        raise ValueError(f"elements of type {name!r} have no size")
    return dtype


def _check_values(flat: npt.NDArray[Any]) -> None:
    """Bytes that are no value of their type would fail later, far from here."""
    import numpy as np

    if not flat.size:
        return
    if flat.dtype.kind == "b" and flat.view(np.uint8).max() > 1:
        raise ValueError("a boolean is neither 0 nor 1")
    if flat.dtype.kind == "U" and flat.view(flat.dtype.byteorder.replace("=", "") + "u4").max() > _MAX_CODE_POINT:
        raise ValueError("a character is beyond Unicode")
