"""Which format the keys under a prefix have."""

from __future__ import annotations

from typing import Final

from neuralcore.messaging.errors import TransportError, Unavailable
from neuralcore_transports.redis.client import Client
from neuralcore_transports.redis.errors import NotOurs

__all__ = ["check_format"]

_FORMAT: Final = "1"


async def check_format(client: Client) -> None:
    """Have it ours, where there are none yet. Raises NotOurs, and TransportError."""
    where, prefix = client.options.shown, client.options.prefix
    try:
        found = await client.registry("open", _FORMAT)
    except Unavailable:
        raise
    except TransportError as error:
        if "WRONGTYPE" in str(error):
            raise NotOurs(where, prefix, str(error)) from error
        raise
    if found != _FORMAT.encode():
        raise NotOurs(where, prefix, f"their format is {found!r}, and ours {_FORMAT}")
