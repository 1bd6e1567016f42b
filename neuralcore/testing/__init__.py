"""For tests of programs that use the bus, and of transports.

``run``, ``virtual`` and ``virtual_bus`` put whole programs into virtual time; ``neuralcore.testing.memory`` is the
reference transport; ``neuralcore.testing.conformance`` is the suite that every transport must pass.
"""

from neuralcore.testing.bus import virtual_bus
from neuralcore.testing.loop import Deadlock, VirtualLoop, run, virtual
from neuralcore.testing.recorder import Recorder, idle

__all__ = ["Deadlock", "Recorder", "VirtualLoop", "idle", "run", "virtual", "virtual_bus"]
