"""The scripts that do a client's work inside the server, each in one step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Final

__all__ = ["CHANNEL", "COMMIT", "FETCH", "INBOX", "PEEK", "REGISTRY", "Script"]


@dataclass(frozen=True, slots=True)
class Script:
    """Put together from files in ``lua/``."""

    name: str
    parts: tuple[str, ...]

    def source(self, version: tuple[int, ...], *, cluster: bool = False) -> bytes:
        return _source(self, version >= (7, 0), cluster)

    def sha(self, version: tuple[int, ...], *, cluster: bool = False) -> str:
        return _sha(self, version >= (7, 0), cluster)


@cache
def _source(script: Script, flags: bool, cluster: bool) -> bytes:
    folder = files("neuralcore_transports.redis") / "lua"
    # A full server must let its clients settle. Before Redis 7 a script cannot ask for that.
    first = "#!lua flags=allow-oom\n" if flags and script is not COMMIT else ""
    settings = f"local CLUSTER = {'true' if cluster else 'false'}\n"
    return (first + settings + "\n".join((folder / f"{part}.lua").read_text() for part in script.parts)).encode()


@cache
def _sha(script: Script, flags: bool, cluster: bool) -> str:
    return sha1(_source(script, flags, cluster), usedforsecurity=False).hexdigest()


_CHANNEL = ("base", "bells", "channel", "group")

COMMIT: Final = Script("commit", (*_CHANNEL, "publish", "inbox", "settle", "commit_main"))
FETCH: Final = Script("fetch", (*_CHANNEL, "fetch", "fetch_main"))
PEEK: Final = Script("peek", (*_CHANNEL, "peek_main"))
CHANNEL: Final = Script("channel", (*_CHANNEL, "settle", "leases", "groups", "channel_main"))
REGISTRY: Final = Script("registry", ("base", "registry_main"))
INBOX: Final = Script("inbox", ("inbox_main",))
