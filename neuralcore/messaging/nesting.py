"""How deep a JSON or MessagePack body nests, found without decoding it.

Decoders recurse, so a body of a few kilobytes can exhaust a stack. These scans build no objects: cheap counts settle
the usual body, and only one with more containers than the limit is looked at closely.
"""

from __future__ import annotations

__all__ = ["NestingError", "check_json", "check_msgpack"]


class NestingError(ValueError):
    """It nests too deep, or declares more than it holds."""


_JSON_TO_SQUARE = bytes.maketrans(b"{}", b"[]")
_NOT_JSON_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def check_json(body: bytes, max_depth: int) -> None:
    """Raises NestingError. What is not JSON at all may pass: the decoder says so better."""
    if body.count(b"[") + body.count(b"{") <= max_depth:
        return
    if b"\\" in body:
        # In this order: a backslash that escapes another one does not escape a quote.
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside_strings = b"".join(body.split(b'"')[::2])
    brackets = outside_strings.translate(_JSON_TO_SQUARE, _NOT_JSON_BRACKETS)
    # Each pass takes the innermost level away.
    for _ in range(max_depth):
        if b"[]" not in brackets:
            break
        brackets = brackets.replace(b"[]", b"")
    if b"[" in brackets:
        raise NestingError(f"it nests deeper than {max_depth} levels, or its brackets do not match")


_FIXARRAY, _FIXMAP, _FIXSTR = range(0x90, 0xA0), range(0x80, 0x90), range(0xA0, 0xC0)
_LONG_CONTAINERS = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""Tag: bytes of the length, elements per entry."""
_BLOBS = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)} | {
    0xD9: (1, 0),
    0xDA: (2, 0),
    0xDB: (4, 0),
}
"""Tag: bytes of the length, bytes of the extension's type."""
_SIZED = {0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9} | {
    0xD4: 3,
    0xD5: 4,
    0xD6: 6,
    0xD7: 10,
    0xD8: 18,
}
_SIZED_NUMBERS = range(0xCA, 0xD4)
_WORTH_A_LOOK = 8


def _step(tag: int) -> int:
    """Bytes of a value whose tag says it all; 0 for the others."""
    if tag in _FIXSTR:
        return 1 + (tag & 31)
    if tag in _FIXARRAY or tag in _FIXMAP or tag in _LONG_CONTAINERS or tag in _BLOBS:
        return 0
    return _SIZED.get(tag, 1)


_STEPS = bytes(_step(tag) for tag in range(256))
_SHORT_CONTAINERS = {tag: tag & 15 for tag in _FIXARRAY} | {tag: 2 * (tag & 15) for tag in _FIXMAP}
_CONTAINER_TAGS = bytes((*_SHORT_CONTAINERS, *_LONG_CONTAINERS))


def check_msgpack(body: bytes, max_depth: int) -> None:
    """Raises NestingError. What is not MessagePack at all may pass: the decoder says so better."""
    containers = len(body) - len(body.translate(None, _CONTAINER_TAGS))
    if containers <= max_depth and not _has_long_container(body):
        return
    _walk_msgpack(body, max_depth)


def _has_long_container(body: bytes) -> bool:
    # Four searches for a byte are many times faster than one for a set of bytes.
    return b"\xdc" in body or b"\xdd" in body or b"\xde" in body or b"\xdf" in body


def _walk_msgpack(body: bytes, max_depth: int) -> None:
    # Every byte's step, as though a value began there. This loop is what large bodies cost, so it is all inline.
    steps = body.translate(_STEPS)
    position, left = 0, 1
    outer: list[int] = []
    try:
        while True:
            for after in range(left - 1, -1, -1):
                step = steps[position]
                if step:
                    position += step
                    continue
                tag = body[position]
                if tag in _BLOBS:
                    position += _blob(body, position)
                    continue
                outer.append(after)
                if len(outer) > max_depth:
                    raise NestingError(f"it nests deeper than {max_depth} levels")
                if tag in _LONG_CONTAINERS:
                    left, position = _long_container(body, position)
                else:
                    left, position = _SHORT_CONTAINERS[tag], position + 1
                if left > _WORTH_A_LOOK and body[position] in _SIZED_NUMBERS:
                    left, position = _skip_numbers(body, position, left)
                break
            else:
                left = outer.pop()
    except IndexError:
        return  # the end of the body, or of its outermost value


def _blob(body: bytes, position: int) -> int:
    width, extra = _BLOBS[body[position]]
    return 1 + width + extra + int.from_bytes(body[position + 1 : position + 1 + width], "big")


def _long_container(body: bytes, position: int) -> tuple[int, int]:
    """How many elements it has, and where they begin."""
    width, per_entry = _LONG_CONTAINERS[body[position]]
    start = position + 1 + width
    elements = int.from_bytes(body[position + 1 : start], "big") * per_entry
    if elements > len(body) - start:
        raise NestingError(f"it declares {elements} elements where {max(0, len(body) - start)} bytes are left")
    return elements, start


def _skip_numbers(body: bytes, start: int, elements: int) -> tuple[int, int]:
    """Past all of a container when it is numbers of one width: embeddings, mostly."""
    step = _SIZED[body[start]]
    stop = start + elements * step
    if body[start:stop:step] == body[start : start + 1] * elements:
        return 0, stop
    return elements, start
