"""What tests of several transports want: names of their own, and to wait for what nothing tells of."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

__all__ = ["eventually", "new_prefix"]


def new_prefix() -> str:
    """Of the test's own, on a server that is shared."""
    return f"t{secrets.token_hex(5)}"


async def eventually(true: Callable[[], Any], what: str, timeout: float = 10.0) -> Any:
    """Whatever it raises meanwhile counts as not yet."""
    deadline = asyncio.get_running_loop().time() + timeout
    error: Exception | None = None
    while asyncio.get_running_loop().time() < deadline:
        try:
            found = true()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
        except Exception as raised:
            error = raised
        await asyncio.sleep(0.01)
    raise AssertionError(f"waited {timeout} s for {what}") from error
