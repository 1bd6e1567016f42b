"""The `memory` reference transport: the whole transport contract, in process and without durability.

``MemoryStore`` is the executable model, synchronous and fed with its time; ``MemoryTransport`` is a client of one.
"""

from neuralcore.testing.memory.leases import Owner
from neuralcore.testing.memory.reader import Reader
from neuralcore.testing.memory.records import Moment
from neuralcore.testing.memory.store import MemoryStore
from neuralcore.testing.memory.transport import MemoryTransport

__all__ = ["MemoryStore", "MemoryTransport", "Moment", "Owner", "Reader"]
