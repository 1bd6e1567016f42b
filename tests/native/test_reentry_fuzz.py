"""Random histories whose destructors, handlers and callbacks use the mailboxes that are in the middle of using them."""

from __future__ import annotations

import asyncio
import gc
import random
import warnings
from contextlib import suppress

import pytest

STEPS = 1_000
POLICIES = ("block", "drop_old", "drop_new", "reject")
DEEPEST = 3
"""Acts inside acts: destructors run others' destructors."""


class Refused(Exception):
    pass


class Payload:
    """Acts when it dies; one in five only dies when the collector comes."""

    def __init__(self, history):
        self.history = history
        self.cycle = self if history.chance(0.2) else None

    def __del__(self):
        if self.history.chance(0.3):
            self.history.act()


class History:
    def __init__(self, core, seed):
        self.core = core
        self.random = random.Random(seed)
        self.clock = core.Clock()
        self.calm = False
        self.depth = 0
        self.tasks = []
        self.router = core.Router(
            self.clock, missing=lambda channel: core.Route(self.router, channel), error=lambda *_: Refused()
        )
        self.mailboxes = [core.Mailbox(self.clock, self, capacity=capacity) for capacity in (6, 4)]
        for mailbox in self.mailboxes:
            self.router.attach("jobs", mailbox)
        self.acts = [
            self._publish,
            self._settle,
            lambda: self._mailbox().clear() if self.chance(0.1) else None,
            lambda: self._mailbox().take_relaxed(-1),
            lambda: self._mailbox().promote(),
            lambda: self._mailbox().configure(
                capacity=self.random.randrange(1, 9), overflow=self.random.choice(POLICIES)
            ),
            lambda: self._start(self._publish_one()),
            lambda: self._start(self._publish_many()),
            lambda: self.random.choice(self.tasks).cancel() if self.tasks else None,
        ]

    def chance(self, of):
        return not self.calm and self.random.random() < of

    def act(self):
        if self.depth >= DEEPEST:
            return
        self.depth += 1
        try:
            with suppress(Refused, ValueError):
                self.random.choice(self.acts)()
        finally:
            self.depth -= 1

    # What happens

    def _mailbox(self):
        return self.random.choice(self.mailboxes)

    def _options(self):
        options = (
            (0.4, "key", self.random.choice("ab")),
            (0.3, "priority", 60),
            (0.1, "delay", 1e-4),
            (0.1, "ttl", 1e-4),
        )
        return {name: value for of, name, value in options if self.chance(of)}

    def _publish(self):
        self.router.publish_nowait("jobs", Payload(self), **self._options())

    def _settle(self):
        mailbox = self._mailbox()
        message = mailbox.take()
        if message is not None:
            self._finish(mailbox, message)

    def _finish(self, mailbox, message):
        how = self.random.randrange(3)
        if how == 0:
            mailbox.ack(message)
        elif how == 1:
            mailbox.release(message)
        else:
            mailbox.retry(message, self.random.choice((0, 100_000)))

    def _start(self, work):
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.append(task)
        task.add_done_callback(self.tasks.remove)

    async def _publish_one(self):
        with suppress(Refused):
            await self.router.publish("jobs", Payload(self), **self._options())

    async def _publish_many(self):
        items = [
            ("jobs", Payload(self)) if self.chance(0.8) else ("jobs", Payload(self), None, self._options())
            for _ in range(self.random.randrange(12))
        ]
        with suppress(Refused):
            await self.router.publish_many(items)

    # The settler's and the pumps' callbacks

    def due(self, mailbox, monotonic_ns, /):
        pass

    def expired(self, message, /):
        if self.chance(0.3):
            self.act()

    async def handle(self, message):
        if isinstance(message, list) and self.chance(0.3):
            message.clear()
        if self.chance(0.2):
            raise KeyError
        if self.chance(0.3):
            self.act()
        if self.chance(0.3):
            await asyncio.sleep(0)

    def pump(self, mailbox, **options):
        def failed(what, error):
            for message in what if isinstance(what, list) else [what]:
                with suppress(ValueError):
                    self._finish(mailbox, message)

        return self.core.Pump(mailbox, self.handle, failed=failed, replied=lambda *_: None, budget=5, **options)


@pytest.mark.parametrize("seed", range(4))
async def test_no_history_loses_a_slot_or_a_key(core, seed):
    history = History(core, seed)
    threshold = gc.get_threshold()
    loop = asyncio.get_running_loop()
    pumps = [
        loop.create_task(history.pump(mailbox, **options))
        for mailbox in history.mailboxes
        for options in ({}, {"batch": 3})
    ]
    gc.set_threshold(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            for _ in range(STEPS):
                history.act()
                await asyncio.sleep(0)
            assert [pump for pump in pumps if pump.done()] == []
            history.calm = True
            while history.tasks:
                for task in list(history.tasks):
                    task.cancel()
                await asyncio.wait(history.tasks)
    finally:
        gc.set_threshold(*threshold)
    for mailbox in history.mailboxes:
        mailbox.configure(capacity=5, overflow="reject")
        while any((stats := mailbox.stats())[1:6]):
            mailbox.promote()
            await asyncio.sleep(0.0001)
        assert stats.delivered == stats.acked + stats.retried + stats.released
    for pump in pumps:
        pump.cancel()
    await asyncio.gather(*pumps, return_exceptions=True)
    for mailbox in history.mailboxes:
        for key in "ababc":
            mailbox.offer(core.Message("jobs", None, id="m", key=key))
        taken = [mailbox.take() for _ in range(3)]
        assert [message.key for message in taken] == ["a", "b", "c"], "no key is held any more"
