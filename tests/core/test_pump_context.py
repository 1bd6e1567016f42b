"""Context variables: every message has a context of its own."""

from __future__ import annotations

import asyncio
import contextvars
import decimal

import pytest

variable = contextvars.ContextVar("variable")
other = contextvars.ContextVar("other", default="default")


@pytest.fixture(autouse=True)
def clean():
    """Whatever a test sets in its own context goes away with it."""


async def run(rig, handler, *payloads, **options):
    mailbox = rig.mailbox("jobs")
    for payload in payloads:
        rig.publish_nowait("jobs", payload)
    mailbox.close()
    await asyncio.wait_for(rig.start(mailbox, handler, **options), 5)
    assert rig.failures == []


def base(**values):
    context = contextvars.Context()
    for name, value in values.items():
        context.run({"variable": variable, "other": other}[name].set, value)
    return context


bases = pytest.mark.parametrize(
    "values", [{}, {"other": "of the base"}, {"other": "of the base", "variable": "base"}], ids=["empty", "one", "two"]
)


@bases
@pytest.mark.parametrize("suspend", [False, True])
async def test_variables_do_not_leak_from_one_message_to_the_next(rig, values, suspend):
    seen = []

    async def handler(message):
        seen.append((variable.get(None), other.get()))
        variable.set(message.payload)
        if suspend:
            await asyncio.sleep(0)
            assert variable.get() == message.payload
        other.set(message.payload)

    await run(rig, handler, 1, 2, 3, context=base(**values))
    assert seen == [(values.get("variable"), values.get("other", "default"))] * 3


async def test_not_even_an_equal_value_leaks(rig):
    mine = []
    seen = []

    def handler(message):
        seen.append(variable.get() is mine)
        variable.set([])

    await run(rig, handler, 1, 2, 3, context=base(variable=mine))
    assert seen == [True, True, True]


async def test_values_that_cannot_be_compared_do_no_harm(rig):
    class Grumpy:
        def __eq__(self, other):
            raise RuntimeError("do not compare me")

        __hash__ = None

    seen = []

    def handler(message):
        seen.append(type(variable.get()))
        variable.set(Grumpy())

    await run(rig, handler, 1, 2, context=base(variable=1))
    assert seen == [int, int]


async def test_a_variable_that_was_reset_is_as_before(rig):
    seen = []

    async def handler(message):
        seen.append(variable.get())
        token = variable.set("temporary")
        await asyncio.sleep(0)
        variable.reset(token)

    await run(rig, handler, 1, 2, context=base(variable="base"))
    assert seen == ["base", "base"]


async def test_a_failed_message_leaks_nothing_either(rig):
    seen = []

    def handler(message):
        seen.append(variable.get(None))
        variable.set(message.payload)
        raise LookupError

    mailbox = rig.mailbox("jobs")
    for number in range(3):
        rig.publish_nowait("jobs", number)
    mailbox.close()
    await asyncio.wait_for(rig.start(mailbox, handler, context=contextvars.Context()), 5)
    assert seen == [None, None, None]
    assert len(rig.failures) == 3


async def test_batches_have_a_context_each(rig):
    seen = []

    def handler(messages):
        seen.append(variable.get(None))
        variable.set(len(messages))

    await run(rig, handler, 1, 2, 3, batch=2, context=contextvars.Context())
    assert seen == [None, None]


async def test_callbacks_run_in_the_context_of_their_message(rig):
    seen = []

    def handler(message):
        variable.set(message.payload)
        if message.payload == 2:
            raise LookupError

    mailbox = rig.mailbox("jobs")
    for number in (1, 2, 3):
        rig.publish_nowait("jobs", number, reply_to="_inbox.1")
    mailbox.close()

    def failed(message, error):
        seen.append(("failed", variable.get()))
        mailbox.ack(message)

    await asyncio.wait_for(
        rig.start(
            mailbox,
            handler,
            failed=failed,
            replied=lambda message, result: seen.append(("replied", variable.get())),
            settled=lambda message, result: seen.append(("settled", variable.get())),
        ),
        5,
    )
    assert seen == [
        ("replied", 1),
        ("settled", 1),
        ("failed", 2),
        ("replied", 3),
        ("settled", 3),
    ]


async def test_the_default_is_the_context_at_construction(rig):
    seen = []
    variable.set("before")
    mailbox = rig.mailbox("jobs")
    pump = rig.pump(mailbox, lambda message: seen.append(variable.get()))
    variable.set("after")
    rig.publish_nowait("jobs", None)
    mailbox.close()
    await asyncio.wait_for(asyncio.get_running_loop().create_task(pump), 5)
    assert seen == ["before"]


async def test_a_given_context_is_copied_and_never_changed(rig):
    context = base(variable="base")

    def handler(message):
        variable.set(message.payload)

    await run(rig, handler, 1, 2, context=context)
    assert context[variable] == "base"


async def test_the_publisher_s_context_does_not_travel(rig):
    seen = []
    variable.set("of the publisher")
    await run(rig, lambda message: seen.append(variable.get(None)), 1, context=contextvars.Context())
    assert seen == [None]


async def test_tasks_started_by_a_handler_keep_its_context(rig):
    seen = []
    tasks = []

    async def later(expected):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        seen.append((expected, variable.get()))

    def handler(message):
        variable.set(message.payload)
        tasks.append(asyncio.get_running_loop().create_task(later(message.payload)))

    await run(rig, handler, 1, 2, 3)
    await asyncio.gather(*tasks)
    assert seen == [(1, 1), (2, 2), (3, 3)]


async def test_a_token_can_be_reset_after_a_suspension(rig):
    async def handler(message):
        token = variable.set(message.payload)
        await asyncio.sleep(0)
        variable.reset(token)
        assert variable.get(None) is None

    await run(rig, handler, 1, 2, context=contextvars.Context())


async def test_the_decimal_context_does_not_leak(rig):
    seen = []

    def handler(message):
        seen.append(decimal.getcontext().prec)
        decimal.setcontext(decimal.Context(prec=message.payload))

    await run(rig, handler, 5, 6, context=contextvars.Context())
    assert seen == [decimal.DefaultContext.prec] * 2


async def test_workers_of_one_mailbox_do_not_share_a_context(rig, soon):
    mailbox = rig.mailbox("jobs")
    seen = []

    async def handler(message):
        variable.set(message.payload)
        await asyncio.sleep(0)
        seen.append((message.payload, variable.get()))

    context = contextvars.Context()
    tasks = [rig.start(mailbox, handler, context=context) for _ in range(3)]
    for number in range(9):
        rig.publish_nowait("jobs", number)
    mailbox.close()
    await soon(asyncio.gather(*tasks))
    assert sorted(seen) == [(number, number) for number in range(9)]
