"""Payloads to bytes and back. Never pickle.

=======================================  ======================================  =====================
payload                                  content type                            arrives untyped as
=======================================  ======================================  =====================
bytes, bytearray, memoryview             application/octet-stream                bytes
str                                      text/plain; charset=utf-8               str
NumPy array                              application/x-neuralcore-ndarray        read-only NumPy array
everything else                          application/msgpack (default) or JSON   dict, list, int, …
=======================================  ======================================  =====================

"Everything else" is what msgspec encodes (builtins, dataclasses, Structs, attrs classes, UUIDs, times, enums), pydantic
models, other mappings, and NumPy scalars. MessagePack is the default because bytes, non-string keys, times with a zone,
NaN, and NumPy arrays inside a larger payload survive it; JSON is for readers that want JSON. Bytes published with a
content type of their own are sent as they are.

Decoding trusts nothing: size, nesting and declared lengths are checked before anything is built.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeVar, cast, get_origin, overload

import msgspec

from neuralcore.messaging.errors import DecodeError, EncodeError
from neuralcore.messaging.ndarray import decode_array, encode_array, is_array
from neuralcore.messaging.nesting import check_json, check_msgpack

__all__ = [
    "JSON",
    "MSGPACK",
    "NDARRAY",
    "OCTETS",
    "TEXT",
    "Codec",
    "Limits",
    "check_type",
    "convert",
    "decode",
    "encode",
]

T = TypeVar("T")

JSON = "application/json"
MSGPACK = "application/msgpack"
OCTETS = "application/octet-stream"
TEXT = "text/plain; charset=utf-8"
NDARRAY = "application/x-neuralcore-ndarray"

NDARRAY_EXTENSION = 78
"""The MessagePack extension type of an array inside a payload; its data is an NDARRAY body."""

_CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1")
_BUFFERS = (bytes, bytearray, memoryview)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a body may be at most before anyone tries to decode it."""

    size: int = 64 * 1024 * 1024
    """Bytes."""
    depth: int = 100
    """Containers inside containers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """A choice of encoding for structured payloads, and limits for decoding."""

    structured: Literal["application/msgpack", "application/json"] = "application/msgpack"
    limits: Limits = field(default_factory=Limits)

    def encode(self, payload: Any, content_type: str | None = None) -> tuple[str, bytes]:
        """The content type and the body. Raises EncodeError."""
        if isinstance(payload, _BUFFERS):
            return content_type or OCTETS, bytes(payload)
        if content_type is None:
            content_type = self._natural(payload)
        try:
            return content_type, _encode_as(_Kind.of(content_type), payload)
        except Exception as error:
            raise EncodeError(
                content_type, f"{_describe(error)} (a payload of type {type(payload).__name__})"
            ) from error

    @overload
    def decode(self, content_type: str, body: bytes | bytearray | memoryview) -> Any: ...
    @overload
    def decode(self, content_type: str, body: bytes | bytearray | memoryview, type: type[T]) -> T: ...
    @overload
    def decode(self, content_type: str, body: bytes | bytearray | memoryview, type: Any) -> Any: ...
    def decode(self, content_type: str, body: bytes | bytearray | memoryview, type: Any = Any) -> Any:
        """The payload, as an instance of ``type``. Raises DecodeError, and nothing else."""
        if len(body) > self.limits.size:
            raise DecodeError(content_type, f"{len(body)} bytes are above the limit of {self.limits.size}")
        try:
            return _decode_as(_Kind.of(content_type), bytes(body), type, self.limits)
        except Exception as error:
            raise DecodeError(content_type, _describe(error)) from error

    def _natural(self, payload: Any) -> str:
        if isinstance(payload, str):
            return TEXT
        return NDARRAY if is_array(payload) else self.structured


def convert(payload: Any, type: Any, content_type: str | None = None) -> Any:
    """A payload that was handed over in process, as an instance of ``type``: what a transport would have made of it.

    Bytes with a content type are decoded. Raises DecodeError.
    """
    if content_type is not None and isinstance(payload, _BUFFERS):
        return decode(content_type, payload, type)
    try:
        # What came as JSON has strings for keys, whatever they were.
        return _convert(payload, type, str_keys=content_type is not None and "json" in content_type.lower())
    except Exception as error:
        raise DecodeError(
            content_type or f"a payload of type {payload.__class__.__name__}", _describe(error)
        ) from error


def check_type(type: Any) -> None:
    """Raises TypeError, with msgspec's reason, for an annotation that nothing can be decoded into."""
    try:
        _msgpack_decoder(type)
        _json_decoder(type)
    except Exception as error:
        raise TypeError(str(error)) from error


DEFAULT = Codec()
encode = DEFAULT.encode
decode = DEFAULT.decode


@dataclass(frozen=True, slots=True)
class _Kind:
    """A content type, understood."""

    name: str
    form: Literal["json", "msgpack", "text", "octets", "ndarray", "other"]
    charset: str = "utf-8"

    @staticmethod
    @lru_cache(maxsize=256)
    def of(content_type: str) -> _Kind:
        name, *parameters = (part.strip() for part in content_type.lower().split(";"))
        charset = "utf-8"
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "charset":
                charset = value.strip().strip('"')
        if charset not in _CHARSETS:
            raise ValueError(f"charset {charset!r} is none of {', '.join(_CHARSETS)}")
        if name.startswith("text/"):
            return _Kind(name, "text", charset)
        if name == JSON or name.endswith("+json"):
            return _Kind(name, "json")
        if name in (MSGPACK, "application/x-msgpack", "application/vnd.msgpack") or name.endswith("+msgpack"):
            return _Kind(name, "msgpack")
        if name == NDARRAY:
            return _Kind(name, "ndarray")
        return _Kind(name, "octets" if name == OCTETS else "other")


def _encode_as(kind: _Kind, payload: Any) -> bytes:
    if kind.form == "json":
        return _to_json(payload)
    if kind.form == "msgpack":
        return _to_msgpack(payload)
    if kind.form == "text":
        if isinstance(payload, str):
            return payload.encode(kind.charset)
        raise TypeError("only a str is text")
    if kind.form == "ndarray":
        if is_array(payload):
            return encode_array(payload)
        raise TypeError("only a NumPy array is an array")
    raise TypeError(f"encode it yourself and publish the bytes, or use {MSGPACK} or {JSON}")


def _decode_as(kind: _Kind, body: bytes, type: Any, limits: Limits) -> Any:
    if kind.form == "json":
        check_json(body, limits.depth)
        return _json_decoder(type).decode(body)
    if kind.form == "msgpack":
        check_msgpack(body, limits.depth)
        return _msgpack_decoder(type).decode(body)
    if kind.form == "text":
        return _convert(body.decode(kind.charset), type)
    if kind.form == "ndarray":
        return _convert(decode_array(body), type)
    return _raw(body, type)


def _json_decoder(type: Any) -> msgspec.json.Decoder[Any]:
    try:
        return _cached_json_decoder(type)
    except TypeError:
        return msgspec.json.Decoder(type, dec_hook=_custom)


def _msgpack_decoder(type: Any) -> msgspec.msgpack.Decoder[Any]:
    try:
        return _cached_msgpack_decoder(type)
    except TypeError:
        return msgspec.msgpack.Decoder(type, dec_hook=_custom, ext_hook=_extension)


# Annotations may be unhashable; then the functions above make a decoder each time.
@lru_cache(maxsize=1024)
def _cached_json_decoder(type: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type, dec_hook=_custom)


@lru_cache(maxsize=1024)
def _cached_msgpack_decoder(type: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(type, dec_hook=_custom, ext_hook=_extension)


def _convert(payload: Any, type: Any, *, str_keys: bool = False) -> Any:
    if type is Any or type is object:
        return payload
    if isinstance(payload, _BUFFERS) or type in _BUFFERS:
        return _raw(payload, type)
    try:
        return msgspec.convert(payload, type, dec_hook=_custom, str_keys=str_keys)
    except msgspec.ValidationError:
        # An object of another class than the one wanted may have the same shape on the wire.
        body = _on_the_wire(payload)
        if body is None:
            raise
    return _msgpack_decoder(type).decode(body)


def _on_the_wire(payload: Any) -> bytes | None:
    try:
        return _to_msgpack(payload)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None


def _raw(body: Any, type: Any) -> Any:
    if type is Any or type is object:
        return body
    if not isinstance(body, _BUFFERS):
        raise TypeError(f"{_name(type)} is wanted, and this is {_name(body.__class__)}")
    if type not in _BUFFERS:
        raise TypeError(f"{_name(type)} is wanted, and these are raw bytes: publish them with their content_type")
    return body if body.__class__ is type else type(body)


def _custom(type: type, value: Any) -> Any:
    """What msgspec does not know itself: pydantic models, and classes that values are instances of already."""
    model = _pydantic_model()
    cls = get_origin(type) or type
    if model is not None and issubclass(cls, model):
        return cast(Any, type).model_validate(value)
    if isinstance(value, cls):
        return value
    raise TypeError(f"{_name(type)} is wanted, and this is {_name(value.__class__)}")


def _extension(code: int, data: memoryview) -> Any:
    return decode_array(data) if code == NDARRAY_EXTENSION else msgspec.msgpack.Ext(code, bytes(data))


def _plain_for_msgpack(value: Any) -> Any:
    if is_array(value):
        return msgspec.msgpack.Ext(NDARRAY_EXTENSION, encode_array(value))
    return _plain(value, "python")


def _plain_for_json(value: Any) -> Any:
    if is_array(value):
        raise TypeError(f"JSON has no arrays of numbers as NumPy has; use {MSGPACK}, or array.tolist()")
    return _plain(value, "json")


def _plain(value: Any, mode: str) -> Any:
    model = _pydantic_model()
    if model is not None and isinstance(value, model):
        return cast(Any, value).model_dump(mode=mode, by_alias=True)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic) and value.dtype.kind in "biufSU":
        plain = value.item()
        if isinstance(plain, numpy.generic):
            raise TypeError(f"{_name(value.__class__)} has no exact counterpart outside this machine")
        return plain
    for base in (int, str, float, bytes):
        if isinstance(value, base):
            return cast(Any, base)(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{_name(value.__class__)} is not a type that can be encoded")


def _pydantic_model() -> type | None:
    # Whoever has a model has imported pydantic; this module need not.
    pydantic = sys.modules.get("pydantic")
    return None if pydantic is None else getattr(pydantic, "BaseModel", None)


def _name(type: Any) -> str:
    return getattr(type, "__qualname__", None) or str(type)


def _describe(error: Exception) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


_to_json = msgspec.json.Encoder(enc_hook=_plain_for_json).encode
_to_msgpack = msgspec.msgpack.Encoder(enc_hook=_plain_for_msgpack).encode
