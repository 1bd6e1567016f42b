"""Where replies arrive: bounded, forgotten with their owner."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from neuralcore.messaging.transport import Envelope, PublishStatus
from neuralcore.testing.memory.leases import Owner

__all__ = ["Inboxes"]


class _Inbox:
    def __init__(self, address: str, owner: Owner, wake: Callable[[], None]) -> None:
        self.address = address
        self.owner = owner
        self.wake = wake
        self.replies: deque[Envelope] = deque()


class Inboxes:
    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._by_address: dict[str, _Inbox] = {}

    def open(self, address: str, owner: Owner, wake: Callable[[], None]) -> None:
        self._by_address[address] = _Inbox(address, owner, wake)

    def put(self, envelope: Envelope) -> PublishStatus:
        inbox = self._by_address.get(envelope.channel)
        if inbox is None or len(inbox.replies) >= self._capacity:
            return PublishStatus.DROPPED
        inbox.replies.append(envelope)
        inbox.wake()
        return PublishStatus.STORED

    def take(self, address: str) -> list[Envelope] | None:
        """All there is; None when the address is not known any more."""
        inbox = self._by_address.get(address)
        if inbox is None:
            return None
        replies = list(inbox.replies)
        inbox.replies.clear()
        return replies

    def close(self, address: str) -> None:
        self._by_address.pop(address, None)

    def close_all(self, owner: Owner) -> None:
        for inbox in [inbox for inbox in self._by_address.values() if inbox.owner is owner]:
            self.close(inbox.address)
