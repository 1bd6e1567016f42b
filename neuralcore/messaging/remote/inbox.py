"""Brings replies to those who wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from neuralcore.messaging import headers
from neuralcore.messaging.codec import Codec
from neuralcore.messaging.context import BusContext
from neuralcore.messaging.errors import DecodeError, RequestFailed
from neuralcore.messaging.remote.backoff import Backoff
from neuralcore.messaging.remote.polling import poll_seconds
from neuralcore.messaging.replies import Replies
from neuralcore.messaging.transport import Envelope, Inbox

__all__ = ["ReplyInbox", "failure_headers"]


class ReplyInbox:
    """One a bus. On the home loop."""

    def __init__(self, context: BusContext, inbox: Inbox, replies: Replies, codec: Codec) -> None:
        self._context = context
        self._inbox = inbox
        self._replies = replies
        self._codec = codec
        self._poll = poll_seconds(context.clock)
        self._backoff = Backoff("fetching replies", context.rng)
        self._task = context.loop.create_task(self._run(), name=f"{context.bus_id} inbox")

    @property
    def address(self) -> str:
        return self._inbox.address

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})
        await self._inbox.close()

    async def _run(self) -> None:
        while True:
            for envelope in await self._fetch():
                self._hand_over(envelope)

    async def _fetch(self) -> Sequence[Envelope]:
        try:
            envelopes = await self._inbox.fetch(self._poll)
        except Exception as error:  # noqa: BLE001 - whatever the transport raises, replies must go on arriving
            self._context.count("reconnects")
            await self._backoff.wait(error)
            return ()
        self._backoff.worked()
        return envelopes

    def _hand_over(self, envelope: Envelope) -> None:
        payload, error = self._read(envelope)
        self._replies.resolve(envelope.correlation_id, payload, error)

    def _read(self, envelope: Envelope) -> tuple[object, Exception | None]:
        failed = envelope.headers.get(headers.REPLY_ERROR_TYPE)
        if failed is not None:
            return None, RequestFailed(failed, envelope.headers.get(headers.REPLY_ERROR, ""))
        try:
            return self._codec.decode(envelope.content_type, envelope.body), None
        except DecodeError as error:
            return None, error


def failure_headers(error: RequestFailed) -> Mapping[str, str]:
    return {headers.REPLY_ERROR_TYPE: error.type, headers.REPLY_ERROR: error.text[: headers.MAX_ERROR_TEXT]}
