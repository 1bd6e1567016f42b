"""The scripts that do a client's work inside the server, each in one step.

From Redis 7 on they are functions of one library, which the server keeps ready; before, scripts, which define
everything they use anew at every call. The library's name has a digest of its text, so that clients of several versions
can use one server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Final

__all__ = ["CHANNEL", "COMMIT", "FETCH", "INBOX", "PEEK", "REGISTRY", "SCRIPTS", "SETTLE", "Dialect", "Script"]


@dataclass(frozen=True, slots=True)
class Script:
    name: str
    parts: tuple[str, ...]
    """Files in ``lua/``; the last one defines a function of its own name, which takes the arguments."""
    may_fill: bool = False
    """A full server refuses it as a whole. All others it must let through, or its clients could settle nothing."""

    @property
    def main(self) -> str:
        return self.parts[-1]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one server is asked."""

    cluster: bool
    flags: bool
    """It knows flags of scripts (Redis 7)."""
    functions: bool
    """It keeps libraries, and this client may use them."""

    @classmethod
    def of(cls, version: tuple[int, ...], *, cluster: bool, functions: bool = True) -> Dialect:
        modern = version >= (7, 0)
        return cls(cluster, modern, modern and functions)

    def call(self, script: Script) -> tuple[str, str]:
        """What a command that runs it begins with."""
        if self.functions:
            return "FCALL", f"{_name(self.cluster)}_{script.name}"
        return "EVALSHA", _sha(script, self.cluster, self.flags)

    def load(self, script: Script) -> Sequence[str | bytes]:
        """The command that makes it known to the server."""
        if self.functions:
            return "FUNCTION", "LOAD", "REPLACE", _library(self.cluster)
        return "SCRIPT", "LOAD", _source(script, self.cluster, self.flags)


_CHANNEL = ("base", "bells", "channel", "group")

_COMMIT = (*_CHANNEL, "publish", "inbox", "settle", "fetch", "push", "commit_main")

COMMIT: Final = Script("commit", _COMMIT, may_fill=True)
SETTLE: Final = Script("settle", _COMMIT)
"""A commit that stores nothing."""
FETCH: Final = Script("fetch", (*_CHANNEL, "fetch", "fetch_main"))
PEEK: Final = Script("peek", (*_CHANNEL, "peek_main"))
CHANNEL: Final = Script("channel", (*_CHANNEL, "settle", "leases", "groups", "channel_main"))
REGISTRY: Final = Script("registry", ("base", "registry_main"))
INBOX: Final = Script("inbox", ("inbox_main",))
SCRIPTS: Final = (COMMIT, SETTLE, FETCH, PEEK, CHANNEL, REGISTRY, INBOX)

_OOM: Final = "allow-oom"
"""Before Redis 7 a script cannot ask for that."""


def _text(parts: Sequence[str], cluster: bool) -> str:
    folder = files("neuralcore_transports.redis") / "lua"
    settings = f"local CLUSTER = {'true' if cluster else 'false'}\n"
    return settings + "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in parts)


@cache
def _source(script: Script, cluster: bool, flags: bool) -> bytes:
    first = f"#!lua flags={_OOM}\n" if flags and not script.may_fill else ""
    return f"{first}{_text(script.parts, cluster)}\nreturn {script.main}(ARGV)".encode()


@cache
def _sha(script: Script, cluster: bool, flags: bool) -> str:
    return sha1(_source(script, cluster, flags), usedforsecurity=False).hexdigest()


@cache
def _body(cluster: bool) -> str:
    return _text(tuple(dict.fromkeys(part for script in SCRIPTS for part in script.parts)), cluster)


@cache
def _name(cluster: bool) -> str:
    return f"neuralcore_{sha1(_body(cluster).encode(), usedforsecurity=False).hexdigest()[:12]}"


@cache
def _library(cluster: bool) -> bytes:
    name = _name(cluster)
    functions = "\n".join(
        f"redis.register_function{{function_name = '{name}_{script.name}', "
        f"callback = function(keys, args) return {script.main}(args) end, "
        f"flags = {{{'' if script.may_fill else repr(_OOM)}}}}}"
        for script in SCRIPTS
    )
    return f"#!lua name={name}\n{_body(cluster)}\n{functions}\n".encode()
