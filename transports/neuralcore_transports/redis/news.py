"""What the server tells this client, by bells and in answer to the keeper's beats, goes to whom it concerns."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import hiredis

from neuralcore.messaging.transport import Runtime
from neuralcore_transports.redis.client import Fetched, Found
from neuralcore_transports.redis.keeper import Beat

if TYPE_CHECKING:
    from neuralcore_transports.redis.transport import RedisTransport

__all__ = ["News"]

log = logging.getLogger("neuralcore.redis")


class News:
    """On the client's loop. It has no connection: Bells and Keeper have."""

    def __init__(self, transport: RedisTransport, runtime: Runtime) -> None:
        self._transport = transport
        self._client = transport.client
        self._leases = transport.leases
        self._spawn = transport.background.spawn
        self._runtime = runtime
        self._version: int | None = None
        """Of the registry of channels."""

    # By bells

    def heard(self, kind: str, rest: bytes) -> None:
        if kind in ("given", "answer"):  # where it cannot be read, the connection breaks, and what it was goes back
            reader = hiredis.Reader()
            reader.feed(rest)
            (self._given if kind == "given" else self._answered)(*reader.gets())
            return
        lines = rest.decode(errors="replace").split("\n")
        try:
            self._told(kind, lines)
        except (ValueError, TypeError) as error:  # anybody may publish on these topics
            where = self._client.options.shown
            log.warning("on Redis at %s somebody says %r, which is no news: %s", where, lines, error)

    def _told(self, kind: str, lines: Sequence[str]) -> None:
        if kind == "ready":
            base, group = lines
            known = [consumer for consumer in self._transport.consumers if consumer.heard(base, group)]
            if not known and self._transport.running:
                self._spawn(self._client.channel("ring", base, group))
        elif kind == "taken":
            self._taken(*lines)
        elif kind == "reply" and lines[0] in self._transport.inboxes:
            self._transport.inboxes[lines[0]].wake()
        elif kind == "channels":
            self._channels_changed(int(lines[0]), lines[1:])

    def _answered(self, base: bytes, priority: int, fields: list[bytes]) -> None:
        inbox = self._transport.inboxes.get(base.decode())
        if inbox is not None:
            inbox.told(priority, fields)

    def _given(
        self, base: bytes, group: bytes, consumer: bytes, turn: int, due: int, lost: list[int], found: list[list[Any]]
    ) -> None:
        """Messages that were handed out as they were stored."""
        names = base.decode(), group.decode(), consumer.decode()
        recreated, trimmed = lost
        fetched = Fetched(
            [Found(*each) for each in found],
            None if due < 0 else due / 1000,
            recreated=recreated,
            trimmed=trimmed,
            turn=turn,
        )
        known = [each for each in self._transport.consumers if each.given(*names, fetched)]
        if not known and self._transport.running:
            self._spawn(self._transport.recover(*names))

    def bells_down(self) -> None:
        """What was on its way is lost."""
        for consumer in self._transport.consumers:
            for place in consumer.places():
                place.rename(self._transport.consumer_name())
            consumer.look_again()

    def bells_back(self) -> None:
        """What was said meanwhile was not heard."""
        self._runtime.reconnected()
        for consumer in self._transport.consumers:
            consumer.look_again(channels=True)
        for inbox in self._transport.inboxes.values():
            inbox.wake()
        self._doubt_leases()

    # By beats

    def beat(self, beat: Beat) -> None:
        if not self._transport.running:
            return
        self._channels_changed(beat.version)
        if not beat.known:
            self._spawn(self._forgotten())
        for session, late in beat.overdue.items():
            if session != self._client.session:
                options = self._client.options
                ended = late > max(options.session_ttl, options.lease)
                self._spawn(self._transport.reclaiming.reclaim(session, ended=ended))

    async def _forgotten(self) -> None:
        """The server takes this client for dead, or has lost what it knew."""
        self._runtime.count("sessions_lost")
        await self._transport.register()
        for consumer in list(self._transport.consumers):
            await consumer.rejoin()
            consumer.look_again(channels=True)
        self._doubt_leases()

    # By either

    def _channels_changed(self, version: int, came: Sequence[str] = ()) -> None:
        """``came``: all that is new in that version, where it is known."""
        before, self._version = self._version, version
        if version == before:
            return
        for consumer in self._transport.consumers:
            if came and before == version - 1:
                consumer.channels_came(came)
            else:
                consumer.look_again(channels=True)
        if before is not None:
            self._runtime.channels_changed()

    def _doubt_leases(self) -> None:
        for base, group in self._leases.places():
            self._taken(base, group)

    def _taken(self, base: str, group: str) -> None:
        """Leases may have gone to others."""
        for consumer in self._transport.consumers:
            for place in consumer.places():
                if (place.base, place.group) == (base, group):
                    place.rename(self._transport.consumer_name())
        self._spawn(self.find_lost(base, group))

    async def find_lost(self, base: str, group: str) -> None:
        """Whether leases that this client believes to have are another's. Raises TransportError."""
        held = self._leases.doubtful(base, group)
        if not held:
            return
        asked: list[str | int] = []
        for _, lease in held:
            asked += (lease.consumer, lease.priority, lease.entry)
        reply = await self._client.channel("owned", base, group, *asked)
        owned = reply[1] if reply[0] == b"ok" else [0] * len(held)
        self._leases.lose(delivery for (delivery, _), mine in zip(held, owned, strict=True) if not mine)
