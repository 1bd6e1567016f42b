"""What only the native core has to prove: memory, reference counts, threads."""

import asyncio
import gc
import importlib

import pytest


class Refused(Exception):
    def __init__(self, kind, channel, detail):
        super().__init__(kind, channel, detail)
        self.kind = kind
        self.detail = detail


class Settler:
    def due(self, mailbox, monotonic_ns, /):
        pass

    def expired(self, message, /):
        pass


class Rig:
    """A router and its mailboxes; nothing in it refers back to the rig."""

    def __init__(self, core):
        self.core = core
        self.clock = core.Clock()
        self.router = make_router(core, self.clock)
        self.failures = []

    def mailbox(self, pattern="jobs", *, capacity=1000, **options):
        mailbox = self.core.Mailbox(self.clock, Settler(), capacity=capacity, **options)
        self.router.attach(pattern, mailbox)
        return mailbox

    def pump(self, mailbox, handler, **options):
        def failed(what, error):
            self.failures.append(error)
            for message in what if isinstance(what, list) else [what]:
                mailbox.ack(message)

        return self.core.Pump(mailbox, handler, **{"failed": failed, "replied": lambda *_: None, **options})

    def start(self, mailbox, handler, **options):
        return asyncio.get_running_loop().create_task(self.pump(mailbox, handler, **options))


def make_router(core, clock):
    routers = []
    router = core.Router(clock, missing=lambda channel: core.Route(routers[0], channel), error=Refused)
    routers.append(router)
    return router


@pytest.fixture
def core():
    try:
        return importlib.import_module("neuralcore._native")
    except ImportError as error:
        pytest.skip(f"the native core is not built ({error}): run `maturin develop`")


@pytest.fixture
def rig(core):
    return Rig(core)


@pytest.fixture
def refused():
    return Refused


@pytest.fixture
def collected():
    """Whether the referents of some weak references are gone after a collection."""

    def check(*references):
        gc.collect()
        return [reference() for reference in references if reference() is not None] == []

    return check


class Payload:
    """Something that can be referred to weakly."""


@pytest.fixture
def payload():
    return Payload
