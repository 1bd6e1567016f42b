"""One message into many mailboxes at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from neuralcore.fallback.message import IN_FLIGHT

if TYPE_CHECKING:
    from neuralcore.fallback.mailbox import Mailbox
    from neuralcore.fallback.message import Message
    from neuralcore.fallback.waker import Waker

__all__ = ["enter_everywhere"]


def enter_everywhere(message: Message, mailboxes: Sequence[Mailbox]) -> bool:
    """Into all of them, if all have room: under all of their locks, which are taken in ascending order."""
    extras = message._extras
    rank = message._rank
    chosen: list[tuple[Mailbox, list[Waker]]] = []
    locked = 0
    try:
        for mailbox in mailboxes:
            mailbox._lock.acquire()
            locked += 1
            if mailbox._slots.taken >= mailbox._slots.ceiling or (mailbox._workers.resting and mailbox._deserted()):
                return False
        delivery = message
        for mailbox in mailboxes:
            if delivery._mailbox is not None:
                delivery = message._copy(extras)
            delivery._mailbox = mailbox
            mailbox._slots.taken += 1
            if extras is None:
                delivery._state = IN_FLIGHT
                mailbox._queue.push(rank, delivery)
            else:
                mailbox._store.push(delivery)
            if mailbox._workers.resting:
                chosen.append((mailbox, mailbox._choose()))
    finally:
        for mailbox in mailboxes[:locked]:
            mailbox._lock.release()
    for mailbox, wakers in chosen:
        mailbox._wake_all(wakers)
    return True
