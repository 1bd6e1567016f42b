"""What was published is what arrives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from neuralcore._core import Message
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import expect, promise, same

PAYLOADS: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2**53,
    -(2**62),
    0.5,
    -1e300,
    "",
    "text",
    "ünï¢ødé 日本語 🜚 \x00 \u2028",
    b"",
    b"\x00\xff raw \x80",
    [],
    {},
    [1, "two", None, [3.5, {"four": []}]],
    {"a": {"b": {"c": [{"d": None}, "é", -1]}}, "": "empty key", "ключ": True},
    {"text": "x" * 10_000},
)

HEADERS = {"plain": "value", "empty": "", "unicode": "žluťoučký 🐎", "With-Case": "a=b;c, d\tq"}

ARRAYS: tuple[np.ndarray[Any, Any], ...] = (
    np.arange(12, dtype=np.float32).reshape(3, 4),
    np.array([], dtype=np.int64),
    np.array(7, dtype=np.uint8),
    np.array([[True, False], [False, True]]),
    np.arange(24, dtype=np.int16).reshape(2, 3, 4)[:, ::2, ::-1],
    np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    np.array([1 + 2j, -3.5j], dtype=np.complex128),
    np.array([np.nan, np.inf, -0.0]),
)

MANY = 3000
BIG = 1 << 20


def in_order(messages: Sequence[Message], ids: Sequence[str | None]) -> list[Any]:
    """The payloads in the order published: order is another promise."""
    by_id = {message.id: message.payload for message in messages}
    expect(set(ids) == set(by_id), "messages arrived under other ids than publish answered")
    return [by_id[id] for id in ids if id is not None]


@promise(mandatory=True)
async def payloads(bed: Bed) -> None:
    """Payloads of every kind arrive equal and of the same type."""
    bus, got, channel = await bed.bus(), bed.collector(), bed.channel()
    await bed.subscribe(bus, channel, got.handle)
    ids = [await bus.publish(channel, payload) for payload in PAYLOADS]
    await got.exactly(len(PAYLOADS), "payloads delivered")
    for sent, received in zip(PAYLOADS, in_order(got.messages, ids), strict=True):
        same(received, sent, "a payload")
        same(type(received), type(sent), f"the type of {sent!r:.60}")


@promise(mandatory=True)
async def arrays(bed: Bed) -> None:
    """NumPy arrays arrive with their dtype, shape and values."""
    bus, got, channel = await bed.bus(), bed.collector(), bed.channel()
    await bed.subscribe(bus, channel, got.handle)
    ids = [await bus.publish(channel, array) for array in ARRAYS]
    await got.exactly(len(ARRAYS), "arrays delivered")
    for sent, received in zip(ARRAYS, in_order(got.messages, ids), strict=True):
        expect(isinstance(received, np.ndarray), f"an array arrived as {type(received).__name__}")
        same((received.dtype, received.shape), (sent.dtype, sent.shape), "dtype and shape")
        np.testing.assert_array_equal(received, sent)


@promise(mandatory=True)
async def big(bed: Bed) -> None:
    """A big payload arrives whole."""
    size = min(BIG, bed.capabilities.max_payload or BIG)
    body = bytes(range(256)) * (size // 256)
    bus, got, channel = await bed.bus(), bed.collector(), bed.channel()
    await bed.subscribe(bus, channel, got.handle)
    await bus.publish(channel, body)
    await got.count(1)
    expect(got.payloads[0] == body, f"a payload of {len(body)} bytes was changed on its way")


@promise(mandatory=True)
async def attributes(bed: Bed) -> None:
    """Headers, correlation id, id and expiry arrive as published, so do key and priority where they are declared."""
    bus, got, channel = await bed.bus(), bed.collector(), bed.channel()
    await bed.subscribe(bus, channel, got.handle)
    optional = bed.offered(priority=7, key="a key/ключ")
    id = await bus.publish(channel, {"n": 1}, headers=HEADERS, correlation_id="correlation-1", ttl=3600, **optional)
    plain = await bus.publish(channel, "plain")
    await got.exactly(2)
    message, bare = sorted(got.messages, key=lambda m: m.payload == "plain")
    same(dict(message.headers), HEADERS, "headers")
    same(message.key, optional.get("key"), "key")
    same(message.correlation_id, "correlation-1", "correlation id")
    same(message.priority, optional.get("priority", 50), "priority")
    same((message.id, message.channel, message.attempt), (id, channel, 1), "id, channel, attempt")
    expect(message.expires_at is not None, "the expiry was lost")
    same((bare.id, bare.priority, bare.key), (plain, 50, None), "id, priority and key by default")
    same((dict(bare.headers), bare.correlation_id), ({}, None), "headers by default")


@promise(mandatory=True)
async def identity(bed: Bed) -> None:
    """Every message has an id and a time of its own, or the id its publisher chose."""
    bus, got, channel = await bed.bus(), bed.collector(), bed.channel()
    await bed.subscribe(bus, channel, got.handle)
    published = [await bus.publish(channel, n) for n in range(50)]
    published.append(await bus.publish(channel, "mine", message_id="my-own-id"))
    await got.exactly(51)
    same(len(set(published)), 51, "different ids")
    by_id = {message.id: message for message in got.messages}
    same(set(by_id), set(published), "ids")
    same(by_id["my-own-id"].payload, "mine", "the payload of the id that its publisher chose")
    times = [by_id[id].timestamp for id in published if id is not None]
    expect(all(times) and times == sorted(times), f"timestamps go back: {times[:5]}…")


@promise(mandatory=True)
async def many(bed: Bed) -> None:
    """Of thousands of messages none is lost and none comes twice."""
    bus, got, channel = await bed.bus(), bed.collector(), bed.channel()
    await bed.subscribe(bus, channel, got.handle)
    ids = await bus.publish_many([(channel, n) for n in range(MANY)])
    expect(None not in ids, "publish_many dropped messages")
    await got.every(range(MANY))


@promise(mandatory=True)
async def before_start(bed: Bed) -> None:
    """A subscription made before the bus starts gets what is published after it."""
    got, channel = bed.collector(), bed.channel()
    bus = bed.harness.bus()
    subscription = bus.subscribe(channel, got.handle, **bed.placed({}))
    async with bus:
        await bed.within(subscription.ready(), "the subscription getting ready")
        await bus.publish(channel, "first")
        await got.exactly(1)
