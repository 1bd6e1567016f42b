"""One server, perhaps behind a proxy, and what its keys say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tests.faults import plan
from tests.faults.processes import Worker
from tests.faults.stage import Stage
from tests.servers.ports import until
from tests.servers.redis import RedisServer

if TYPE_CHECKING:
    import redis

__all__ = ["RedisStage"]

KEPT = 1_000_000


class RedisStage(Stage):
    transport: ClassVar[str] = "tests.faults.redis.transport"
    insist: ClassVar[bool] = True

    def __init__(
        self,
        folder: Path,
        server: RedisServer,
        *,
        port: int | None = None,
        query: str = "lease=1&timeout=2",
        env: Mapping[str, str] | None = None,
        seed: int = plan.SEED,
    ) -> None:
        """``port``: a proxy's."""
        super().__init__(folder, query=query, env=env, seed=seed)
        self.server = server
        self.port = port or server.port

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0?{self.query}"

    def start(self, role: str, *, heart: bool = True, **how: Any) -> Worker:
        """Without a ``heart`` no lease is extended."""
        return super().start(role, tuning={"heart": heart}, **how)

    # What the server has

    def stored(self, channel: str = "work") -> Counter[str]:
        """How many entries there are of each id."""
        with self.server.client(decode_responses=False) as client:
            keys = client.keys(f"nc:{{{channel}}}:p:*")
            ids = (fields.get(b"ce_id", entry) for key in keys for entry, fields in client.xrange(key))
            return Counter(id.decode() for id in ids)

    def left(self, channel: str = "work") -> int:
        """Entries that some group has not settled."""
        with self.server.client() as client:
            return sum(self.stored(channel).values()) - client.zcard(f"nc:{{{channel}}}:idle")

    def refused(self, channel: str = "work") -> int:
        """Settlements that came too late."""
        with self.server.client() as client:
            return int(client.hget(f"nc:{{{channel}}}:meta", "rejected") or 0)

    def in_flight(self, channel: str = "work", group: str = "g") -> int:
        """Entries that some client has fetched."""
        with self.server.client() as client:
            consumers = [c for key in client.keys(f"nc:{{{channel}}}:p:*") for c in client.xinfo_consumers(key, group)]
        return sum(consumer["pending"] for consumer in consumers if consumer["name"] != "_waiting")

    def debris(self, channel: str = "work", *, timeout: float = 5.0) -> list[str]:
        """What should be gone once everything is settled; given a moment, as settling is not awaited by a journal."""

        def clean() -> bool:
            return not self._debris(channel)

        try:
            until(clean, timeout=timeout, what="the keys to be tidy")
        except AssertionError:
            return self._debris(channel)
        return []

    def _debris(self, channel: str) -> list[str]:
        base = f"nc:{{{channel}}}"
        with self.server.client() as client:
            found = [f"{key} has {size}" for key, size in _sizes(client, base).items() if size]
            for key in client.keys(f"{base}:p:*"):
                for group in client.xinfo_groups(key):
                    if group["pending"]:
                        owners = {c["name"]: c["pending"] for c in client.xinfo_consumers(key, group["name"])}
                        found.append(f"{key} has pending for {group['name']}: {owners}")
        return found


def _sizes(client: redis.Redis, base: str) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for kind in ("back", "due", "parked"):
        sizes |= {key: client.zcard(key) for key in client.keys(f"{base}:{kind}:*")}
    for kind in ("keys", "tries"):
        sizes |= {key: client.hlen(key) for key in client.keys(f"{base}:{kind}:*")}
    return sizes
