"""Which mailboxes a channel reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from neuralcore.fallback.mailbox import Mailbox

__all__ = ["Patterns", "is_exact", "split"]

_LITERAL: Final = 0
_ONE: Final = 1
_REST: Final = 2
_REST_TOKEN: Final = ">"  # noqa: S105 - a token of a name

Specificity = tuple[int, ...]


class _Node:
    __slots__ = ("children", "entries")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.entries: list[tuple[Mailbox, str | None]] = []


class Patterns:
    """A trie by tokens."""

    __slots__ = ("_root",)

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, pattern: str, mailbox: Mailbox, group: str | None) -> None:
        node = self._root
        for token in split(pattern):
            node = node.children.setdefault(token, _Node())
        if (mailbox, group) not in node.entries:
            node.entries.append((mailbox, group))

    def remove(self, pattern: str, mailbox: Mailbox) -> None:
        path = [self._root]
        tokens = split(pattern)
        for token in tokens:
            child = path[-1].children.get(token)
            if child is None:
                return
            path.append(child)
        path[-1].entries = [entry for entry in path[-1].entries if entry[0] is not mailbox]
        for parent, token, child in zip(reversed(path[:-1]), reversed(tokens), reversed(path), strict=False):
            if child.entries or child.children:
                return
            del parent.children[token]

    def match(self, channel: str) -> list[Mailbox]:
        """In ascending mailbox order, each once; of one group only the most specific pattern's."""
        found: list[tuple[Specificity, Mailbox, str | None]] = []
        _collect(self._root, channel.split("."), 0, (), found)
        best: dict[str, Specificity] = {}
        for specificity, _, group in found:
            if group is not None:
                best[group] = min(specificity, best.get(group, specificity))
        chosen = {mailbox for specificity, mailbox, group in found if group is None or best[group] == specificity}
        return sorted(chosen, key=_order)


def _collect(
    node: _Node,
    tokens: list[str],
    at: int,
    specificity: Specificity,
    found: list[tuple[Specificity, Mailbox, str | None]],
) -> None:
    if at == len(tokens):
        found.extend((specificity, mailbox, group) for mailbox, group in node.entries)
        return
    token = tokens[at]
    child = node.children.get(token)
    if child is not None and token not in ("*", ">"):
        _collect(child, tokens, at + 1, (*specificity, _LITERAL), found)
    if at == 0 and token.startswith("_"):
        return
    child = node.children.get("*")
    if child is not None:
        _collect(child, tokens, at + 1, (*specificity, _ONE), found)
    child = node.children.get(">")
    if child is not None:
        found.extend(((*specificity, _REST), mailbox, group) for mailbox, group in child.entries)


def split(pattern: str) -> list[str]:
    """The tokens of a pattern. Raises ValueError for one that is malformed."""
    tokens = pattern.split(".")
    for index, token in enumerate(tokens):
        if not token:
            raise ValueError(f"pattern {pattern!r} has an empty token")
        if token == _REST_TOKEN and index + 1 < len(tokens):
            raise ValueError(f"pattern {pattern!r} goes on after '>', which stands for the rest")
        if len(token) > 1 and ("*" in token or ">" in token):
            raise ValueError(
                f"pattern {pattern!r} has a wildcard inside the token {token!r}; wildcards are whole tokens"
            )
    return tokens


def is_exact(pattern: str) -> bool:
    return "*" not in pattern and ">" not in pattern


def _order(mailbox: Mailbox) -> int:
    return mailbox._order
