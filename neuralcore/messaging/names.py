"""The rules for names of channels and patterns.

A name is tokens joined by dots (``memory.write``). In a pattern ``*`` stands for one token and a last ``>`` for one
or more. A first token that begins with ``_`` marks a channel of the bus's own (``_dlq.memory.write``): anyone may
subscribe to it by name and browse it, but only the bus publishes there, and no leading wildcard matches it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from neuralcore.messaging.errors import InvalidChannelName

__all__ = [
    "DEAD_LETTER_PREFIX",
    "INBOX_PREFIX",
    "MAX_LENGTH",
    "dead_letter_channel",
    "is_pattern",
    "is_reserved",
    "matches",
    "near_misses",
    "specificity",
    "validate_channel",
    "validate_pattern",
]

MAX_LENGTH = 255
"""Characters, not counting a reserved first token (``_dlq.``), so that every channel can have a dead-letter channel."""

DEAD_LETTER_PREFIX = "_dlq."
INBOX_PREFIX = "_inbox."

# Surrogates cannot be encoded as UTF-8, which every wire wants.
_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_WILDCARD = re.compile(r"[*>]")


def validate_channel(name: str, *, internal: bool = False) -> str:
    """The name, if a message may be published to it; ``internal`` allows reserved ones. Raises InvalidChannelName."""
    _check_text(name)
    found = _WILDCARD.search(name)
    if found:
        raise InvalidChannelName(name, f"{found.group()!r} is a wildcard, which only subscriptions may have")
    _check_tokens(name)
    if not internal and is_reserved(name):
        raise InvalidChannelName(name, "names that begin with '_' are the bus's own; choose another first token")
    return name


def validate_pattern(pattern: str) -> str:
    """The pattern, if it may be subscribed to: a channel's name, reserved or not, or one with wildcards."""
    _check_text(pattern)
    tokens = _check_tokens(pattern)
    for token in tokens:
        found = _WILDCARD.search(token)
        if found and len(token) > 1:
            raise InvalidChannelName(pattern, f"the wildcard {found.group()!r} in {token!r} must be a token of its own")
    if ">" in tokens[:-1]:
        raise InvalidChannelName(pattern, "the wildcard '>' may only be the last token")
    return pattern


def is_pattern(name: str) -> bool:
    """Whether a valid name has wildcards."""
    return _WILDCARD.search(name) is not None


def specificity(pattern: str) -> tuple[int, ...]:
    """Sorts the patterns of one channel, most specific first: token by token a literal, then ``*``, then ``>``."""
    return tuple({"*": 1, ">": 2}.get(token, 0) for token in pattern.split("."))


def is_reserved(name: str) -> bool:
    """Whether the name is one of the bus's own."""
    return name.startswith("_")


def dead_letter_channel(channel: str) -> str:
    """Where a channel's dead letters go unless its configuration says otherwise."""
    return DEAD_LETTER_PREFIX + channel


def matches(pattern: str, channel: str) -> bool:
    """Whether a valid pattern covers a valid channel: the rule that routers and transports implement."""
    wanted, found = pattern.split("."), channel.split(".")
    if is_reserved(channel) and wanted[0] in ("*", ">"):
        return False
    if wanted[-1] == ">":
        if len(found) < len(wanted):
            return False
        wanted.pop()
        found = found[: len(wanted)]
    return len(wanted) == len(found) and all(w in ("*", f) for w, f in zip(wanted, found, strict=True))


def near_misses(name: str, known: Iterable[str], *, limit: int = 3) -> tuple[str, ...]:
    """The known names most like this one, best first."""
    return tuple(get_close_matches(name, sorted(set(known)), n=limit))


def _check_text(name: str) -> None:
    if not isinstance(name, str):
        raise InvalidChannelName(name, f"a name is a str, not {type(name).__name__}")
    if not name:
        raise InvalidChannelName(name, "it is empty")
    counted = name.partition(".")[2] if is_reserved(name) else name
    if len(counted) > MAX_LENGTH:
        raise InvalidChannelName(name, f"it has {len(counted)} characters; {MAX_LENGTH} are allowed")
    found = _UNPRINTABLE.search(name)
    if found:
        raise InvalidChannelName(
            name, f"{found.group()!r} at position {found.start()} is whitespace or a control character"
        )


def _check_tokens(name: str) -> list[str]:
    tokens = name.split(".")
    if "" in tokens:
        raise InvalidChannelName(name, "it has an empty token; write single dots between tokens and none at the ends")
    return tokens
