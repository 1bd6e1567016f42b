"""What most messages do not have."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["NO_EXTRAS", "NO_HEADERS", "Extras"]

NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class Extras:
    """Made only for a message that needs one of these; shared by the deliveries of one attempt, never changed."""

    __slots__ = (
        "attempt",
        "content_type",
        "correlation_id",
        "delivery",
        "expires_at_ns",
        "headers",
        "key",
        "reply_to",
    )

    def __init__(
        self,
        *,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        expires_at_ns: int | None = None,
        content_type: str | None = None,
        attempt: int = 1,
        delivery: object = None,
    ) -> None:
        self.headers = MappingProxyType(dict(headers)) if headers else NO_HEADERS
        self.key = key
        self.correlation_id = correlation_id
        self.reply_to = reply_to
        self.expires_at_ns = expires_at_ns
        self.content_type = content_type
        self.attempt = attempt
        self.delivery = delivery

    def next_attempt(self) -> Extras:
        return Extras(
            headers=self.headers,
            key=self.key,
            correlation_id=self.correlation_id,
            reply_to=self.reply_to,
            expires_at_ns=self.expires_at_ns,
            content_type=self.content_type,
            attempt=self.attempt + 1,
            delivery=self.delivery,
        )


NO_EXTRAS: Final = Extras()
"""For messages that have none, but are handled with care for another reason."""
