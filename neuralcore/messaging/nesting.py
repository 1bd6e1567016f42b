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


def _step(tag: int) -> int:
    """Bytes of a value whose tag says it all; 0 for the others."""
    if tag in _FIXSTR:
        return 1 + (tag & 31)
    if tag in _FIXARRAY or tag in _FIXMAP or tag in _LONG_CONTAINERS or tag in _BLOBS:
        return 0
    return _SIZED.get(tag, 1)


_STEP = tuple(_step(tag) for tag in range(256))
_SHORT_CONTAINER_TAGS = bytes((*_FIXMAP, *_FIXARRAY))
_LONG_CONTAINER_TAGS = bytes(_LONG_CONTAINERS)


def check_msgpack(body: bytes, max_depth: int) -> None:
    """Raises NestingError. What is not MessagePack at all may pass: the decoder says so better."""
    without_long = body.translate(None, _LONG_CONTAINER_TAGS)
    if len(without_long) == len(body):
        containers = len(body) - len(body.translate(None, _SHORT_CONTAINER_TAGS))
        if containers <= max_depth:
            return
    _walk_msgpack(body, max_depth)


def _walk_msgpack(body: bytes, max_depth: int) -> None:
    end, position, left = len(body), 0, 1
    outer: list[int] = []
    while True:
        while not left:
            if not outer:
                return
            left = outer.pop()
        if position >= end:
            return
        tag = body[position]
        step = _STEP[tag]
        left -= 1
        if step:
            position += step
            if left > 8 and tag in _SIZED_NUMBERS:
                position, left = _skip_numbers(body, position, left, tag, step)
        elif tag in _BLOBS:
            width, extra = _BLOBS[tag]
            position += 1 + width + extra + int.from_bytes(body[position + 1 : position + 1 + width], "big")
        else:
            elements, position = _container(body, position, tag)
            if elements > end - position:
                raise NestingError(f"it declares {elements} elements where {end - position} bytes are left")
            outer.append(left)
            left = elements
            if len(outer) > max_depth:
                raise NestingError(f"it nests deeper than {max_depth} levels")


def _container(body: bytes, position: int, tag: int) -> tuple[int, int]:
    """How many elements it has, and where they begin."""
    if tag in _LONG_CONTAINERS:
        width, per_entry = _LONG_CONTAINERS[tag]
        start = position + 1 + width
        return int.from_bytes(body[position + 1 : start], "big") * per_entry, start
    return (tag & 15) * (1 if tag in _FIXARRAY else 2), position + 1


def _skip_numbers(body: bytes, position: int, left: int, tag: int, step: int) -> tuple[int, int]:
    """Past the rest of a container when all of it is numbers of one width: embeddings, mostly."""
    stop = position + left * step
    if body[position:stop:step] == bytes((tag,)) * left:
        return stop, 0
    return position, left
