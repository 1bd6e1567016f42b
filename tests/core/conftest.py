"""The contract of ``neuralcore/_native.pyi``, tested on both implementations and on every event loop there is."""

from __future__ import annotations

import asyncio
import importlib

import pytest

try:
    import uvloop
except ImportError:
    uvloop = None

IMPLEMENTATIONS = ("fallback", "native")
LOOPS = {"asyncio": asyncio.new_event_loop} | ({} if uvloop is None else {"uvloop": uvloop.new_event_loop})

START_WALL_NS = 1_750_000_000_000_000_000
START_MONOTONIC_NS = 5_000_000_000


@pytest.fixture(params=IMPLEMENTATIONS)
def core(request):
    """The module under test."""
    if request.param == "fallback":
        return importlib.import_module("neuralcore.fallback")
    try:
        return importlib.import_module("neuralcore._native")
    except ImportError as error:
        pytest.skip(f"the native core is not built ({error}): run `maturin develop`")


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(config, item):
    return LOOPS


class Refused(Exception):
    """What the router's ``error`` builds."""

    def __init__(self, kind, channel, detail):
        super().__init__(kind, channel, detail)
        self.kind = kind
        self.channel = channel
        self.detail = detail


class AlreadySettled(Exception):
    pass


class Settler:
    """Settles on the mailbox as a bus would, and writes down what it was asked."""

    def __init__(self):
        self.asked = []
        self.due_times = []
        self.expired_messages = []

    async def ack(self, message, /):
        self._open("ack", message)
        self.mailbox.ack(message)

    async def nack(self, message, delay, /):
        self._open("nack", message, delay)
        self.mailbox.retry(message, 0 if delay is None else int(delay * 1e9))

    async def reject(self, message, reason, /):
        self._open("reject", message, reason)
        self.mailbox.ack(message)

    async def release(self, message, /):
        self._open("release", message)
        self.mailbox.release(message)

    async def reply(self, message, payload, /):
        self.asked.append(("reply", message.id, payload))

    def due(self, mailbox, monotonic_ns, /):
        assert mailbox is self.mailbox
        self.due_times.append(monotonic_ns)

    def expired(self, message, /):
        self.expired_messages.append(message)

    def _open(self, verb, message, *details):
        if not message._settle():
            raise AlreadySettled
        self.asked.append((verb, message.id, *details))


class Rig:
    """A router and whatever is attached to it."""

    def __init__(self, core, **router):
        self.core = core
        self.clock = core.Clock(manual=True, time_ns=START_WALL_NS, monotonic_ns=START_MONOTONIC_NS)
        self.asked_for = []
        self.failures = []
        self.replies = []
        self.router = core.Router(self.clock, missing=self._missing, error=Refused, **router)
        self.publish = self.router.publish
        self.publish_nowait = self.router.publish_nowait
        self._messages = 0

    def mailbox(self, *patterns, group=None, capacity=100, **options):
        settler = Settler()
        mailbox = self.core.Mailbox(self.clock, settler, capacity=capacity, **options)
        settler.mailbox = mailbox
        for pattern in patterns:
            self.router.attach(pattern, mailbox, group=group)
        return mailbox

    def message(self, payload=None, *, channel="jobs", **options):
        self._messages += 1
        options.setdefault("id", f"{self._messages:032x}")
        return self.core.Message(channel, payload, **options)

    def pump(self, mailbox, handler, **options):
        def failed(what, error):
            self.failures.append((what, error))
            for message in what if isinstance(what, list) else [what]:
                mailbox.ack(message)

        def replied(message, result):
            self.replies.append((message.payload, result))

        # No time slice unless a test is about it: a busy machine must not end a step early.
        return self.core.Pump(mailbox, handler, **{"failed": failed, "replied": replied, "slice_ns": 0, **options})

    def start(self, mailbox, handler, **options):
        return asyncio.get_running_loop().create_task(self.pump(mailbox, handler, **options))

    def route(self, channel):
        return self.router.routes()[channel]

    def _missing(self, channel):
        self.asked_for.append(channel)
        return self.core.Route(self.router, channel)


@pytest.fixture
def rig(core):
    return Rig(core)


@pytest.fixture
def make_rig(core):
    """A rig whose router has options of its own."""
    return lambda **router: Rig(core, **router)


@pytest.fixture
def refused():
    return Refused


@pytest.fixture
def already_settled():
    return AlreadySettled


async def _turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
def turns():
    """Let the loop run until whatever is ready has had its turn."""
    return _turns


async def _soon(awaitable):
    return await asyncio.wait_for(awaitable, 5)


@pytest.fixture
def soon():
    """Wait for what is about to happen, but not for ever."""
    return _soon


def _drain(mailbox):
    payloads = []
    while (message := mailbox.take()) is not None:
        payloads.append(message.payload)
        mailbox.ack(message)
    return payloads


@pytest.fixture
def drain():
    """Take and ack all that can be handled now; answers the payloads."""
    return _drain
