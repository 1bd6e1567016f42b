"""Snapshots of the counters."""

from typing import NamedTuple

from neuralcore.fallback.histogram import Histogram

__all__ = ["MailboxStats", "RouteStats"]


class MailboxStats(NamedTuple):
    capacity: int
    queued: int
    parked: int
    """Waiting for the key of a message in flight."""
    delayed: int
    in_flight: int
    waiting: int
    """Publishers that wait for a slot."""
    delivered: int
    acked: int
    retried: int
    released: int
    dropped: int
    expired: int
    wait: Histogram
    """Sampled: from publish (or becoming due) to the handler."""
    handle: Histogram
    """Sampled: the handler's own time."""


class RouteStats(NamedTuple):
    published: int
    """Messages that at least one mailbox took."""
    unrouted: int
    dropped: int
    """Messages that no mailbox took because of its overflow policy."""
    refused: int
    """Publishers that raised: full, or no subscribers although mandatory."""
    publish: Histogram
    """Sampled: from the call to the entry into the mailboxes."""
