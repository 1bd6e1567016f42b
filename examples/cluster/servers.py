"""The servers' host: one Redis, or three Kafka brokers, until SIGTERM.

``python -m examples.cluster.servers redis|kafka ADDRESS LEASE FOLDER``. The URL is in FOLDER/url once they serve.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.kafka_cluster import KafkaCluster
from tests.servers.redis import RedisServer

__all__ = ["PARTITIONS", "serve"]

PARTITIONS = 12
"""Two for each of six workers."""


@contextmanager
def serve(kind: str, address: str, lease: str, folder: Path) -> Iterator[str]:
    """The URL of what runs while the block does."""
    if kind == "redis":
        with RedisServer(folder / "redis", host=address, options={"protected-mode": "no"}) as redis:
            yield f"{redis.url()}/0?lease={lease}"
    else:
        with KafkaCluster(folder / "kafka", brokers=3, host=address) as kafka:
            yield f"kafka://{kafka.bootstrap}/shop?lease={lease}&partitions={PARTITIONS}"


def main(kind: str, address: str, lease: str, folder: str) -> None:
    signal.signal(signal.SIGTERM, _end)
    with serve(kind, address, lease, Path(folder)) as url:
        half = Path(folder, "url.new")
        half.write_text(url, encoding="utf-8")
        half.rename(Path(folder, "url"))
        while True:
            signal.pause()


def _end(*_: object) -> None:
    sys.exit()


if __name__ == "__main__":
    main(*sys.argv[1:])
