"""A cluster: a key belongs to one of 16,384 slots, a slot to one of the servers, and that may change at any time."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError, TryAgainError

from neuralcore_transports.redis.errors import MOVING, translated
from neuralcore_transports.redis.options import Address, RedisOptions
from neuralcore_transports.redis.pipe import Broken, NotSent, Pipe
from neuralcore_transports.redis.scripts import Script
from neuralcore_transports.redis.servers import Node, Part, Servers

__all__ = ["Cluster", "owners_in", "whole"]

log = logging.getLogger("neuralcore.redis")

_REDIRECTIONS: Final = 8
"""In a row: a slot on its way between two servers takes two."""
_PAUSE: Final = 0.1
_LEAST_INTERVAL: Final = 0.1
"""Seconds between two looks at who has what."""


class Cluster(Servers):
    def __init__(self, options: RedisOptions, on_broken: Callable[[Exception], None]) -> None:
        super().__init__(options, on_broken)
        self._nodes: dict[Address, Node] = {}
        self._owners: dict[int, Address] = {}
        self._looking: asyncio.Task[None] | None = None
        self._looked = 0.0
        self._closed = False

    async def open(self) -> None:
        await self._learn()
        for address in set(self._owners.values()):
            try:
                await self._node(address).load()
            except NotSent as error:
                log.debug("%s:%s of the cluster cannot be reached: %s", *address, error)
            except RedisError as error:
                raise translated(error, self.options.shown) from error

    def version(self) -> tuple[int, ...]:
        return min((node.version for node in self._nodes.values() if node.version), default=(6, 2))

    def slot(self, key: str) -> int:
        return int(key_slot(key.encode()))

    # Who has what

    def _node(self, address: Address) -> Node:
        if address not in self._nodes:
            self._nodes[address] = Node(self.options, address, self._node_broken)
        return self._nodes[address]

    def _node_broken(self, error: Exception) -> None:
        self.on_broken(error)
        self._look()

    def _look(self) -> None:
        """Find out who has what now, beside everything else."""
        if not self._closed and (self._looking is None or self._looking.done()):
            self._looking = asyncio.ensure_future(self._look_again())

    async def _look_again(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._looked + _LEAST_INTERVAL - loop.time()))
        self._looked = loop.time()
        try:
            await self._learn()
        except Exception as error:  # noqa: BLE001 - whoever needs the answer asks again
            log.debug("the cluster does not say who has what: %s", error)

    async def _learn(self) -> None:
        """Raises TransportError when none of the servers says."""
        failure: Exception = NotSent("no server of the cluster answers")
        candidates = list(dict.fromkeys([*self._owners.values(), *self.options.hosts]))
        random.shuffle(candidates)
        for address in candidates:
            try:
                answer = await self._node(address).call("work", "CLUSTER", "SLOTS")
            except (NotSent, Broken, RedisError) as error:
                cause = error.__cause__
                failure = cause if isinstance(error, NotSent) and isinstance(cause, Exception) else error
                continue
            owners = owners_in(answer, address)
            if owners:
                self._owners = owners
                await self._drop_others()
                return
            failure = NotSent("the cluster has no slots yet: make it with redis-cli --cluster create")
        raise translated(failure, self.options.shown) from failure

    async def _drop_others(self) -> None:
        wanted = {*self._owners.values(), *self.options.hosts}
        for address in [address for address in self._nodes if address not in wanted]:
            await self._nodes.pop(address).close()

    def _owner(self, slot: int) -> Node:
        address = self._owners.get(slot)
        if address is None:
            self._look()
            raise NotSent(f"no server of the cluster has the slot {slot}")
        return self._node(address)

    # Asking

    async def script(
        self, lane: str, script: Script, keys: Sequence[str], parts: Sequence[Part], wait: Sequence[Part] = ()
    ) -> tuple[Any, Any]:
        async def ask(node: Node, *, asking: bool) -> Any:
            return await node.script(lane, script, whole(keys), parts, wait, asking=asking)

        found: tuple[Any, Any] = await self._redirected(self.slot(keys[0]), ask)
        return found

    async def call(self, lane: str, key: str, *command: Part) -> Any:
        async def ask(node: Node, *, asking: bool) -> Any:
            return await node.call(lane, *command, asking=asking)

        return await self._redirected(self.slot(key), ask)

    async def each(self, *command: Part) -> list[Any]:
        answers = []
        for address in set(self._owners.values()):
            try:
                answers.append(await self._node(address).call("work", *command))
            except RedisError as error:
                raise translated(error, self._node(address).where) from error
        return answers

    async def _redirected(self, slot: int, ask: Callable[..., Any]) -> Any:
        node, asking = self._owner(slot), False
        failure: Exception = NotSent("")
        for _ in range(_REDIRECTIONS):
            try:
                return await ask(node, asking=asking)
            except AskError as error:
                failure, node, asking = error, self._node((error.host or _host(node), error.port)), True
            except MovedError as error:
                failure, node, asking = error, self._node((error.host or _host(node), error.port)), False
                self._owners[slot] = node.address or self._owners[slot]
                self._look()
            except (TryAgainError, ClusterDownError) as error:
                failure = error
                self._look()
                await asyncio.sleep(_PAUSE)
                node, asking = self._owner(slot), False
            except RedisError as error:
                if MOVING not in str(error):
                    raise translated(error, node.where) from error
                failure = error
                await asyncio.sleep(_PAUSE)
                node, asking = self._owner(slot), False
            except NotSent:
                self._look()
                raise
        raise translated(failure, self.options.shown) from failure

    async def listen(self, on_push: Callable[[list[Any]], None]) -> Pipe:
        """On any of them: in a cluster all hear what one is told to publish."""
        addresses = list(set(self._owners.values())) or list(self.options.hosts)
        random.shuffle(addresses)
        for address in addresses[1:]:
            try:
                return await self._node(address).connect(on_push)
            except (RedisError, OSError, asyncio.TimeoutError) as error:
                log.debug("%s:%s of the cluster cannot be reached: %s", *address, error)
        return await self._node(addresses[0]).connect(on_push)

    async def close(self) -> None:
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        for node in list(self._nodes.values()):
            await node.close()


def whole(keys: Sequence[str]) -> Sequence[str]:
    """With one more of the same slot that never exists. While a slot is on its way, a script would find some of its
    keys, and make the others anew: this has both servers answer TRYAGAIN until all keys are in one place.
    """
    return *keys, f"{keys[0]}:none"


def _host(node: Node) -> str:
    assert node.address is not None
    return node.address[0]


def owners_in(answer: Any, asked: Address) -> dict[int, Address]:
    """What CLUSTER SLOTS answers: ranges with their masters first. An empty host is the one that was asked."""
    owners: dict[int, Address] = {}
    for first, last, master, *_ in answer:
        host = master[0].decode() if master[0] else asked[0]
        owners.update(dict.fromkeys(range(first, last + 1), (host, master[1])))
    return owners
