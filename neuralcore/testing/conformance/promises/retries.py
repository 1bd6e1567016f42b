"""Back-off, dead letters, and messages that never succeed."""

from __future__ import annotations

from typing import Any

from neuralcore._core import Message
from neuralcore.messaging.retry import Reject, RetryPolicy
from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.promise import Broken, expect, promise, same

EXACT = RetryPolicy(max_attempts=5, base=0.1, factor=2.0, cap=0.3, jitter=False)
JITTER = RetryPolicy(max_attempts=4, base=0.1, factor=2.0, cap=0.2)
TWICE = RetryPolicy(max_attempts=2, base=0.01)


async def fail(message: Message) -> None:
    raise ValueError("it is broken: žluť")


async def reject(message: Message) -> None:
    raise Reject("not for me")


def ago(dead: Message) -> float:
    """Seconds from the first publish to the dead letter, by its headers."""
    return (int(dead.headers["nc-dlq-time"]) - int(dead.headers["nc-dlq-first-time"])) / 1e9


@promise(mandatory=True)
async def backoff(bed: Bed) -> None:
    """Retries wait exponentially longer, up to the cap, and never less than they should."""
    bus, channel, got = await bed.bus(), bed.channel(), bed.collector(fail)
    await bed.subscribe(bus, channel, got.handle, retry=EXACT, dead_letter=False)
    await bus.publish(channel, 1)
    await got.exactly(5)
    for attempt, wait in enumerate((0.1, 0.2, 0.3, 0.3), start=1):
        check_wait(bed, got.times[attempt] - got.times[attempt - 1], wait, f"attempt {attempt}")


def check_wait(bed: Bed, passed: float, wait: float, what: str) -> None:
    if passed < wait - 0.001:
        raise Broken(f"the wait after {what} was {passed:.4f} s, less than {wait:.4f} s")
    slack = bed.harness.slack
    if slack is not None and passed > wait + slack:
        raise Broken(f"the wait after {what} was {passed:.4f} s, more than {wait:.4f} s")


@promise(mandatory=True)
async def jitter(bed: Bed) -> None:
    """With full jitter the waits differ, and none is above its ceiling."""
    bus, channel, got = await bed.bus(), bed.channel(), bed.collector(fail)
    await bed.subscribe(bus, channel, got.handle, retry=JITTER, dead_letter=False, concurrency=12)
    for n in range(12):
        await bus.publish(channel, n)
    await got.exactly(12 * 4)
    waits: list[list[float]] = [[], [], []]
    for n in range(12):
        times = [time for m, time in zip(got.messages, got.times, strict=True) if m.payload == n]
        for index in range(3):
            waits[index].append(times[index + 1] - times[index])
    if bed.harness.slack is not None:
        for ceiling, found in zip((0.1, 0.2, 0.2), waits, strict=True):
            expect(max(found) <= ceiling + bed.harness.slack, f"a wait of {max(found):.3f} s")
    expect(len({round(wait, 4) for found in waits for wait in found}) > 12, "waits do not differ")


@promise(mandatory=True)
async def dead_letter(bed: Bed) -> None:
    """After its last attempt a message is dead-lettered, with origin, reason, error and attempts."""
    bus, channel, got, dead = await bed.bus(), bed.channel(), bed.collector(fail), bed.collector()
    await bed.subscribe(bus, f"_dlq.{channel}", dead.handle)
    subscription = await bed.subscribe(bus, channel, got.handle, retry=TWICE)
    payload = {"kept": [1, "ü", None]}
    optional = bed.offered(key="k", priority=9)
    id = await bus.publish(channel, payload, headers={"mine": "too"}, **optional)
    (letter,) = await dead.exactly(1, "dead letters")
    same(len(got.messages), 2, "attempts")
    same(letter.payload, payload, "the dead letter's payload")
    wanted_too = (optional.get("key"), optional.get("priority", 50))
    same((letter.key, letter.priority), wanted_too, "the dead letter's key and priority")
    headers = dict(letter.headers)
    wanted = {
        "mine": "too",
        "nc-dlq-origin": channel,
        "nc-dlq-reason": "attempts",
        "nc-dlq-error-type": "ValueError",
        "nc-dlq-error": "it is broken: žluť",
        "nc-dlq-attempts": "2",
        "nc-dlq-id": id,
    }
    if subscription.group is not None:
        wanted["nc-dlq-group"] = subscription.group
    same({name: headers.get(name) for name in wanted}, wanted, "the dead letter's headers")
    expect(0 <= ago(letter) < 3600, f"its times are {ago(letter)} s apart")


@promise(mandatory=True)
async def rejected(bed: Bed) -> None:
    """``Reject`` dead-letters at once, with its reason."""
    bus, channel, got, dead = await bed.bus(), bed.channel(), bed.collector(reject), bed.collector()
    await bed.subscribe(bus, f"_dlq.{channel}", dead.handle)
    await bed.subscribe(bus, channel, got.handle)
    await bus.publish(channel, 1)
    (letter,) = await dead.exactly(1, "dead letters")
    same(len(got.messages), 1, "attempts")
    same(letter.headers.get("nc-dlq-reason"), "rejected", "reason")
    same(letter.headers.get("nc-dlq-error"), "not for me", "error")


@promise(mandatory=True)
async def undecodable(bed: Bed) -> None:
    """A payload that is not what the handler declares is dead-lettered without calling it."""
    bus, channel, dead = await bed.bus(), bed.channel(), bed.collector()
    called: list[int] = []

    async def typed(number: int) -> None:
        called.append(number)

    await bed.subscribe(bus, f"_dlq.{channel}", dead.handle)
    await bed.subscribe(bus, channel, typed)
    await bus.publish(channel, {"not": "a number"})
    await bus.publish(channel, 7)
    (letter,) = await dead.exactly(1, "dead letters")
    same(called, [7], "what the handler was called with")
    same(letter.headers.get("nc-dlq-reason"), "undecodable", "reason")


@promise(mandatory=True)
async def poison(bed: Bed) -> None:
    """A message that always fails does not stop the ones behind it."""
    bus, channel, dead = await bed.bus(), bed.channel(), bed.collector()

    async def fail_some(message: Message) -> None:
        if message.payload % 10 == 0:
            raise RuntimeError("poison")

    got, good = bed.collector(fail_some), [n for n in range(50) if n % 10]
    await bed.subscribe(bus, f"_dlq.{channel}", dead.handle)
    await bed.subscribe(bus, channel, got.handle, retry=TWICE)
    for n in range(50):
        await bus.publish(channel, n)
    await dead.every(n for n in range(50) if n % 10 == 0)
    delivered = [m.payload for m in got.messages if m.payload % 10]
    same(sorted(delivered), good, "the healthy messages, each once")


@promise(mandatory=True)
async def never_twice(bed: Bed) -> None:
    """A dead letter that fails again is not dead-lettered again."""
    bus, channel = await bed.bus(), bed.channel()
    dead, deader = bed.collector(fail), bed.collector()
    await bed.subscribe(bus, f"_dlq._dlq.{channel}", deader.handle)
    await bed.subscribe(bus, f"_dlq.{channel}", dead.handle, retry=TWICE)
    await bed.subscribe(bus, channel, bed.collector(reject).handle)
    await bus.publish(channel, 1)
    await dead.exactly(2, "attempts to handle the dead letter")
    await deader.exactly(0, "dead letters of dead letters")


@promise(mandatory=True)
async def elsewhere_or_nowhere(bed: Bed) -> None:
    """Dead letters go to the channel that was configured, or nowhere when that was configured."""
    bus, channel, silent, other = await bed.bus(), bed.channel(), bed.channel(), bed.channel("dead")
    default, configured = bed.collector(), bed.collector()
    for name in (channel, silent):
        await bed.subscribe(bus, f"_dlq.{name}", default.handle)
    await bed.subscribe(bus, other, configured.handle)
    refused = bed.collector(reject)
    await bed.subscribe(bus, channel, refused.handle, dead_letter=other)
    await bed.subscribe(bus, silent, refused.handle, dead_letter=False)
    await bus.publish(channel, "elsewhere")
    await bus.publish(silent, "nowhere")
    await refused.count(2)
    (letter,) = await configured.exactly(1, "dead letters in the configured channel")
    same(letter.payload, "elsewhere", "the dead letter")
    await default.exactly(0, "dead letters in the default channels")


@promise("groups")
async def each_group_by_itself(bed: Bed) -> None:
    """One group's failures cost the other group nothing."""
    bus, channel = await bed.bus(), bed.channel()
    failing, fine = bed.collector(fail), bed.collector()
    await bed.subscribe(bus, channel, failing.handle, retry=TWICE, dead_letter=False)
    await bed.subscribe(bus, channel, fine.handle)
    for n in range(5):
        await bus.publish(channel, n)
    await fine.every(range(5))
    await failing.exactly(10)
    attempts: Any = [m.attempt for m in fine.messages]
    same(attempts, [1] * 5, "attempts in the group that does not fail")
