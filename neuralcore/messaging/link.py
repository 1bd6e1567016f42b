"""How a bus sits on a transport: what differs between its own mailboxes and a remote store, behind one interface.

The bus makes intakes and workers; the link brings messages into the intakes' mailboxes, carries publishes, and says
what settling means. `local.py` is the native transport's link, `remote/` is everybody else's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from neuralcore._core import Message, RouteStats
from neuralcore.messaging.channel import ChannelConfig
from neuralcore.messaging.context import BusContext
from neuralcore.messaging.errors import UnknownChannel
from neuralcore.messaging.intake import Intake
from neuralcore.messaging.lacking import missing
from neuralcore.messaging.names import is_pattern, is_reserved, near_misses
from neuralcore.messaging.publishing import Publish, PublishMany, PublishNowait
from neuralcore.messaging.replies import Replies
from neuralcore.messaging.settle import Settlement
from neuralcore.messaging.terms import Terms
from neuralcore.messaging.timers import Timers
from neuralcore.messaging.transport import Capabilities, Cursor

if TYPE_CHECKING:
    from neuralcore.messaging.dead_letters import DeadLetters
    from neuralcore.messaging.remote.transactions import BusTransaction

__all__ = ["Link"]


class Link(ABC):
    capabilities: Capabilities
    publish: Publish
    publish_nowait: PublishNowait
    publish_many: PublishMany

    def __init__(self, context: BusContext, timers: Timers, replies: Replies) -> None:
        self.context = context
        self.timers = timers
        self.replies = replies

    @abstractmethod
    async def open(self) -> None:
        """On the home loop, before anything is published. Raises Unavailable."""

    # Channels

    @abstractmethod
    def declare(self, config: ChannelConfig) -> None:
        """Takes effect before the next publish or attach of that channel. Raises ChannelConflict, Unsupported."""

    @abstractmethod
    def channels(self) -> Mapping[str, ChannelConfig]:
        """Every channel that was declared or used."""

    @abstractmethod
    def queue_size(self, channel: str) -> int:
        """Messages waiting in this process for handlers of the channel."""

    def check_known(self, pattern: str) -> None:
        """Without ``auto_create`` a name that nobody created is a mistake; a pattern waits for what may come.

        Raises UnknownChannel.
        """
        if self.context.auto_create or is_pattern(pattern) or is_reserved(pattern):
            return
        known = self.channels()
        if pattern not in known:
            raise UnknownChannel(pattern, near_misses(pattern, known))

    def check_terms_known(self, terms: Terms) -> None:
        """The same for all that terms name. Raises UnknownChannel."""
        self.check_known(terms.pattern)
        if terms.dead_letter:
            self.check_known(terms.dead_letter)

    # Subscriptions

    @abstractmethod
    def check(self, terms: Terms) -> None:
        """Raises Unsupported when the transport lacks what they need."""

    @abstractmethod
    def settlement(self, terms: Terms) -> Settlement:
        """Its ``mailbox`` is set by the bus, which makes the mailbox with it."""

    @abstractmethod
    def attach(self, intake: Intake) -> None:
        """Bring messages from now on. From any thread."""

    @abstractmethod
    async def attached(self, intake: Intake) -> None:
        """Returns once its position is fixed: what is published later reaches it."""

    async def seek(self, intake: Intake, position: Cursor) -> None:
        """Everything from there on again. Raises Unsupported, ValueError."""
        raise missing("seek_id", "nothing is kept to go back to", called="seek")

    @abstractmethod
    def detach(self, intake: Intake) -> None:
        """Bring nothing more; what is in the mailbox is still its workers'. From any thread."""

    @abstractmethod
    async def discard(self, intake: Intake, messages: Sequence[Message]) -> tuple[int, int]:
        """Of a detached intake, what no handler will get: give it back where the transport can.

        How many were given back (while the bus closes, also by others, such as streams), and how many are lost.
        """

    @abstractmethod
    def reshape(self) -> None:
        """The bus's middleware changed: rebuild the publish paths."""

    def dead_letters(self, channel: str) -> DeadLetters:
        """Raises Unsupported where nothing can be browsed."""
        raise missing("browse", f"dead letters of {channel!r}; subscribe to them instead")

    # Transactions

    def connection(self) -> AbstractAsyncContextManager[Any]:
        """Raises Unsupported where an application's rows cannot be in the same database."""
        raise missing("transactions=database", "it has no database", called="connection()")

    def transaction(self, connection: Any | None) -> AbstractAsyncContextManager[BusTransaction]:
        """Raises Unsupported."""
        raise missing("transactions", "each message is stored for itself")

    # Requests

    @abstractmethod
    async def reply_address(self) -> str:
        """The bus's inbox, ready when this returns."""

    # The end

    @abstractmethod
    def outstanding(self, deadline_ns: int) -> int:
        """Messages that this process still has to handle or settle, and can before the monotonic deadline."""

    @abstractmethod
    async def quiesce(self) -> None:
        """Stop bringing messages that nobody in this process has yet, before the drain."""

    def refuse(self) -> None:
        """After the drain: publishers that still wait for a mailbox get Closed."""

    @abstractmethod
    async def close(self) -> None:
        """Flush settlements and let go of the transport. No worker runs any more."""

    # Watching

    @abstractmethod
    def route_stats(self) -> Mapping[str, RouteStats]:
        """By channel."""
