"""The servers as a thread without a loop asks them: by plain connections, one question at a time."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any, Final

from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError, ResponseError, TryAgainError
from redis.retry import Retry

from neuralcore_transports.redis.cluster import owners_in, whole
from neuralcore_transports.redis.errors import MOVING
from neuralcore_transports.redis.options import Address, RedisOptions
from neuralcore_transports.redis.scripts import Dialect, Script
from neuralcore_transports.redis.servers import connection_options

__all__ = ["BlockingServers"]

_REDIRECTIONS: Final = 8
_PAUSE: Final = 0.05

Part = str | bytes | int


class BlockingServers:
    """In place of the client library's cluster, which asks what needs rights of its own (COMMAND), and retries."""

    def __init__(self, options: RedisOptions, timeout: float) -> None:
        self._options = options
        self._timeout = timeout
        self._connections: dict[Address, Any] = {}
        self._owners: dict[int, Address] = {}
        self._seen: set[Address] = set()
        """All that were ever told of: any of them may be what is left of the cluster."""

    def script(self, dialect: Dialect, script: Script, key: str, *parts: Part) -> Any:
        """Raises RedisError, OSError."""
        keys = whole((key,)) if self._options.cluster else (key,)
        return self._ask(key, *dialect.call(script), len(keys), *keys, *parts)

    def teach(self, dialect: Dialect, script: Script, key: str) -> None:
        self._ask(key, *dialect.load(script))

    def close(self) -> None:
        """What is asked next is asked by new connections."""
        for connection in self._connections.values():
            connection.disconnect()
        self._connections.clear()
        self._owners.clear()

    def _ask(self, key: str, *command: Part) -> Any:
        if not self._options.cluster:
            return self._send(self._options.hosts[0], command)
        slot = key_slot(key.encode())
        address, asking = self._owner(slot), False
        failure: Exception | None = None
        for _ in range(_REDIRECTIONS):
            try:
                return self._send(address, command, asking=asking)
            except AskError as error:
                failure, asking = error, True
                address = error.host or address[0], error.port
            except MovedError as error:
                failure, asking = error, False
                self._owners[slot] = address = error.host or address[0], error.port
            except ResponseError as error:
                if not isinstance(error, TryAgainError | ClusterDownError) and MOVING not in str(error):
                    raise
                failure, asking = error, False
                time.sleep(_PAUSE)
                address = self._owner(slot)
        assert failure is not None
        raise failure

    def _owner(self, slot: int) -> Address:
        if slot not in self._owners:
            self._learn()
        if slot not in self._owners:
            raise ClusterDownError("no server of the cluster has the slot")
        return self._owners[slot]

    def _learn(self) -> None:
        failure: Exception | None = None
        addresses = list({*self._options.hosts, *self._seen})
        random.shuffle(addresses)
        for address in addresses:
            try:
                self._owners = owners_in(self._send(address, ("CLUSTER", "SLOTS")), address)
            except (RedisError, OSError) as error:
                failure = error
                continue
            self._seen.update(self._owners.values())
            return
        assert failure is not None
        raise failure

    def _send(self, address: Address, command: Sequence[Part], *, asking: bool = False) -> Any:
        connection = self._connections.get(address)
        if connection is None:
            connection = self._connections[address] = self._connection(address)
        if asking:
            self._exchange(connection, ("ASKING",))
        return self._exchange(connection, command)

    def _exchange(self, connection: Any, command: Sequence[Part]) -> Any:
        connection.send_command(*command)
        return connection.read_response()

    def _connection(self, address: Address) -> Any:
        options = self._options
        made = {
            **connection_options(options),
            "socket_connect_timeout": self._timeout,
            "socket_timeout": self._timeout,
            "retry": Retry(NoBackoff(), 0),
        }
        if options.socket is not None:
            return UnixDomainSocketConnection(path=options.socket, **made)  # type: ignore[abstract, no-untyped-call]
        host, port = address
        return (SSLConnection if options.tls else Connection)(host=host, port=port, **made)
