"""Real Redis servers.

>>> with RedisServer(tmp_path, appendfsync="always", unixsocket=True) as server:
...     server.client().set("key", "value")
...     server.restart(kill=True)
...     server.url(), server.url("unix")
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from tests.servers.certificates import Certificates
from tests.servers.missing import redis_binary
from tests.servers.ports import HOST, free_port, until
from tests.servers.process import ServerProcess

if TYPE_CHECKING:
    import redis

__all__ = ["RedisServer"]

LONGEST_SOCKET_PATH = 100
ALIVE = (b"+PONG", b"-NOAUTH", b"-NOPERM")


class RedisServer(ServerProcess):
    """Redis on a free port of the loopback, or of ``host``; ``appendfsync=None`` keeps nothing on disk.

    ``users`` are ACL rules by name, as in ``{"bus": "on >secret ~* &* +@all"}``. ``options`` are lines of redis.conf.
    TLS replaces the plain port, and is in the 7.0 of `make servers` only; ``tls=other.certificates`` has both trust one
    authority, which a replica does by itself.
    """

    def __init__(
        self,
        folder: Path,
        *,
        version: str = "7.0",
        binary: Path | None = None,
        host: str = HOST,
        appendfsync: Literal["always", "everysec", "no"] | None = "everysec",
        unixsocket: bool = False,
        password: str | None = None,
        users: Mapping[str, str] | None = None,
        tls: bool | Certificates = False,
        maxmemory: str | None = None,
        maxmemory_policy: str = "noeviction",
        replica_of: RedisServer | None = None,
        options: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        name: str = "redis",
    ) -> None:
        super().__init__(name, folder, env=env)
        self.binary = binary or redis_binary(version)
        self.host = host
        self.port = free_port()
        self.socket_path = self._socket_path() if unixsocket else None
        self.password = password
        self.users = dict(users or {})
        self.replica_of = replica_of
        self.certificates = self._certificates(tls)
        self._durability = {"appendonly": "no"} if appendfsync is None else _append_only(appendfsync)
        self._limit = {"maxmemory": maxmemory, "maxmemory-policy": maxmemory_policy} if maxmemory else {}
        self.options = dict(options or {})

    def command(self) -> list[str]:
        configuration = self.folder / "redis.conf"
        lines = [f"{key} {value}" for key, value in self._settings().items()]
        lines += [f"user {name} {rules}" for name, rules in self.users.items()]
        configuration.write_text("\n".join([*lines, ""]), encoding="utf-8")
        return [str(self.binary), str(configuration)]

    def answers(self) -> bool:
        with contextlib.suppress(OSError), self._connection() as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(ALIVE)
        return False

    def url(
        self,
        scheme: str | None = None,
        *,
        user: str | None = None,
        password: str | None = None,
        port: int | None = None,
    ) -> str:
        """``redis://``, ``rediss://`` where it has TLS; ``unix`` and anything that ends in it is the socket's.

        ``port`` is a proxy's. The password is the server's own unless another one is given, as for one of ``users``.
        """
        scheme = scheme or ("rediss" if self.certificates else "redis")
        secret = password if password is not None else self.password
        login = f"{quote(user or '', safe='')}:{quote(secret, safe='')}@" if secret is not None else ""
        if scheme.endswith("unix"):
            assert self.socket_path is not None, "the server was made without unixsocket=True"
            return f"{scheme}://{login}{self.socket_path}"
        return f"{scheme}://{login}{self.host}:{port or self.port}"

    def client(self, **options: Any) -> redis.Redis:
        """A synchronous client that tries each thing once and gives strings: to look on beside the code under test."""
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        options = {"decode_responses": True, "socket_timeout": 5.0, "retry": Retry(NoBackoff(), 0), **options}
        if self.certificates:
            options.setdefault("ssl_ca_certs", str(self.certificates.ca))
        return redis.Redis.from_url(self.url(), **options)

    def info(self, section: str) -> dict[str, Any]:
        with self.client() as client:
            return client.info(section)

    def wait_for_replicas(self, count: int = 1, *, timeout: float = 20.0) -> None:
        """Until so many replicas have caught up with it."""

        def caught_up() -> bool:
            found = self.info("replication")
            states = [found[f"slave{index}"] for index in range(found["connected_slaves"])]
            return sum(s["state"] == "online" and s["offset"] >= found["master_repl_offset"] for s in states) >= count

        until(caught_up, timeout=timeout, what=f"{count} replicas of {self.name}")

    def kill(self) -> None:
        super().kill()
        if self.socket_path is not None:
            self.socket_path.unlink(missing_ok=True)

    def _certificates(self, tls: bool | Certificates) -> Certificates | None:
        if self.replica_of is not None and tls is True:  # to be trusted by its master
            return self.replica_of.certificates
        return Certificates.make(self.folder / "tls") if tls is True else tls or None

    def _settings(self) -> dict[str, str]:
        settings = {"bind": self.host, "port": str(self.port), "dir": _quoted(self.folder), "save": '""'}
        settings["repl-diskless-sync-delay"] = "0"  # by default 5 s, to serve more replicas at once
        settings |= self._durability | self._limit | self._tls() | self._replication()
        if self.socket_path is not None:
            settings["unixsocket"] = _quoted(self.socket_path)
        if self.password is not None:
            settings["requirepass"] = _quoted(self.password)
        return settings | self.options

    def _tls(self) -> dict[str, str]:
        if self.certificates is None:
            return {}
        made = self.certificates
        files = {"cert-file": made.server, "key-file": made.server_key, "ca-cert-file": made.ca}
        secured = {f"tls-{key}": _quoted(path) for key, path in files.items()}
        return {"port": "0", "tls-port": str(self.port), "tls-auth-clients": "optional", **secured}

    def _replication(self) -> dict[str, str]:
        if self.replica_of is None:
            return {}
        settings = {"replicaof": f"{self.replica_of.host} {self.replica_of.port}"}
        if self.replica_of.password is not None:
            settings["masterauth"] = _quoted(self.replica_of.password)
        if self.replica_of.certificates is not None:
            settings["tls-replication"] = "yes"
        return settings

    def _socket_path(self) -> Path:
        beside = self.folder / "redis.sock"
        short = len(str(beside)) < LONGEST_SOCKET_PATH
        return beside if short else Path(tempfile.gettempdir(), f"redis-{self.port}.sock")

    def _connection(self) -> socket.socket:
        plain = socket.create_connection((self.host, self.port), timeout=1.0)
        if self.certificates is None:
            return plain
        try:
            trusted = ssl.create_default_context(cafile=str(self.certificates.ca))
            return trusted.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


def _append_only(appendfsync: str) -> dict[str, str]:
    return {"appendonly": "yes", "appendfsync": appendfsync}


def _quoted(text: object) -> str:
    escaped = str(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
