"""The signatures of publishing, written once: links provide them, the bus exposes them."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

__all__ = ["Publish", "PublishMany", "PublishNowait", "PublishThreadsafe"]


class Publish(Protocol):
    def __call__(
        self,
        channel: str,
        payload: Any,
        *,
        priority: int | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        ttl: float | None = None,
        delay: float | None = None,
        not_before: float | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        content_type: str | None = None,
        message_id: str | None = None,
        idempotency_key: str | None = None,
        mandatory: bool = False,
    ) -> Awaitable[str | None]: ...


class PublishNowait(Protocol):
    def __call__(
        self,
        channel: str,
        payload: Any,
        *,
        priority: int | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        ttl: float | None = None,
        delay: float | None = None,
        not_before: float | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        content_type: str | None = None,
        message_id: str | None = None,
        idempotency_key: str | None = None,
        mandatory: bool = False,
    ) -> str | None: ...


class PublishThreadsafe(Protocol):
    def __call__(
        self,
        channel: str,
        payload: Any,
        *,
        priority: int | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        ttl: float | None = None,
        delay: float | None = None,
        not_before: float | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        content_type: str | None = None,
        message_id: str | None = None,
        idempotency_key: str | None = None,
        mandatory: bool = False,
    ) -> Future[str | None]: ...


class PublishMany(Protocol):
    def __call__(self, items: Iterable[tuple[Any, ...]], /) -> Awaitable[Sequence[str | None]]: ...
