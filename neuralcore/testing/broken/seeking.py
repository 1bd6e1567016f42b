"""Faults in where reading starts, and in how long a position lasts."""

from __future__ import annotations

from dataclasses import replace

from neuralcore.messaging.transport import Cursor, Demand, Group, GroupRef, Interest, Page
from neuralcore.testing.broken.wrapped import Wrapped


class IgnoresSeeks(Wrapped):
    def seeking(self, position: Cursor) -> Cursor | None:
        return None


class SeeksTheBeginning(Wrapped):
    """Wherever it is to go."""

    def seeking(self, position: Cursor) -> Cursor | None:
        return "beginning"


class BrowsesFromTheBeginning(Wrapped):
    """Wherever it is to begin; the cursors of its own pages it knows."""

    async def browse(self, channel: str, start: Cursor, limit: int) -> Page:
        own = isinstance(start, str) and start.startswith("@")
        return await super().browse(channel, start if own else "beginning", limit)


class RepeatsItsPages(Wrapped):
    async def browse(self, channel: str, start: Cursor, limit: int) -> Page:
        return await super().browse(channel, "beginning", limit)


class IgnoresStarts(Wrapped):
    def reading(self, interest: Interest) -> Interest:
        return replace(interest, start=None)


class ForgetsGroups(Wrapped):
    """A group ends with its last member."""

    async def leaving(self, group: Group) -> None:
        if group.name is not None:
            await self.inner.remove(GroupRef(group.name))


class RemembersBroadcasts(Wrapped):
    """All broadcasts are one group, which lasts."""

    def grouped(self, group: Group) -> Group:
        return Group("broadcast") if group.name is None else group


class IgnoresPauses(Wrapped):
    def demanding(self, demand: Demand) -> Demand:
        return replace(demand, limit=demand.limit or 1)
