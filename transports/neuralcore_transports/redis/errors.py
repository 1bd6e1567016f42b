"""What can be wrong with a server.

::

    TransportError
    ├── RedisRefused        the server does not let us: credentials, rights, a command that is switched off
    ├── NotOurs             the keys under this prefix are somebody else's
    └── Unavailable
        ├── ServerBusy      it is loading, out of memory, read-only or cannot write: it may pass
        └── NotStored       of this commit nothing has happened
"""

from __future__ import annotations

import asyncio
from typing import Final

from redis import exceptions

from neuralcore.messaging.errors import TransportError, Unavailable

__all__ = ["NotOurs", "RedisRefused", "ServerBusy", "translated"]


class RedisRefused(TransportError):
    """The server does not let this client do what it must."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"Redis at {where} refuses: {reason}")
        self.where = where
        self.reason = reason


class NotOurs(TransportError):
    """Keys under this prefix hold something else."""

    def __init__(self, where: str, prefix: str, reason: str) -> None:
        super().__init__(
            f"the keys under {prefix!r} in Redis at {where} are not a bus's: {reason}; use another ?prefix="
        )
        self.where = where
        self.prefix = prefix
        self.reason = reason


class ServerBusy(Unavailable):
    """The server answers, but cannot do it now. Of what was asked for nothing has happened.

    ``lasting``: it will not pass by waiting a little.
    """

    lasting = False


_PASSING: Final = {
    "LOADING": "it is loading its data",
    "READONLY": "it is a replica now, and takes no writes",
    "MASTERDOWN": "it is a replica without its master",
    "OOM": "it is out of memory: raise maxmemory, or let consumers drain it",
    "MISCONF": "it cannot write to its disk, and refuses writes",
    "NOREPLICAS": "too few of its replicas are there",
    "CLUSTERDOWN": "the cluster is down",
    **dict.fromkeys(("TRYAGAIN", "ASK", "MOVED"), "the cluster is moving the slot"),
    "BUSY": "a script runs for too long",
    "UNBLOCKED": "it was turned into a replica",
}
_LASTING: Final = ("OOM", "MISCONF")
MOVING: Final = "Script attempted to access a non local key"
"""Some keys of its slot are on another server already."""
_REFUSING: Final = ("NOAUTH", "WRONGPASS", "NOPERM", "NOPROTO")
_REFUSING_IN_SCRIPTS: Final = ("ACL failure in script", "The user executing the script can't")


def translated(error: Exception, where: str) -> Exception:
    """The same as an error of ours."""
    text = _text(error)
    if isinstance(error, exceptions.AuthenticationError | exceptions.NoPermissionError) or text.startswith(_REFUSING):
        return RedisRefused(where, text)
    if any(words in text for words in _REFUSING_IN_SCRIPTS):
        return RedisRefused(where, text)
    passing = next((code for code in _PASSING if _has(text, code)), None)
    if passing is not None:
        busy = ServerBusy("redis", f"{where}: {_PASSING[passing]} ({text})")
        busy.lasting = passing in _LASTING
        return busy
    if isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError | asyncio.TimeoutError | OSError):
        return Unavailable("redis", f"{where}: {text or type(error).__name__}")
    if isinstance(error, exceptions.ResponseError):
        if "unknown command" in text.lower():
            return RedisRefused(where, text)
        return TransportError(f"Redis at {where} answered with an error: {text}")
    if isinstance(error, exceptions.RedisError):
        return Unavailable("redis", f"{where}: {text}")
    return error


def _text(error: Exception) -> str:
    """With the code that the client library takes off."""
    code = getattr(error, "status_code", None)
    text = str(error)
    return f"{code} {text}" if code and not text.startswith(str(code)) else text


def _has(text: str, code: str) -> bool:
    """Before Redis 7 the error of a script's command comes behind words about the script."""
    return text.startswith(f"{code} ") or f" -{code} " in text or f": {code} " in text
