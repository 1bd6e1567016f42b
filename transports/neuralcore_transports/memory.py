"""``memory://``: the reference transport, which every store is compared with.

It lives with the conformance suite in ``neuralcore.testing``; this is its door.
"""

from neuralcore.testing.memory import MemoryTransport

__all__ = ["MemoryTransport"]
