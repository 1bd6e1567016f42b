"""For tests of programs that use the bus, and of transports: virtual time, a reference transport, the conformance suite.

``run`` and ``virtual`` put a whole program into virtual time; see ``neuralcore.testing.loop``.
``neuralcore.testing.conformance`` is the suite every transport must pass.
"""

from neuralcore.testing.loop import Deadlock, VirtualLoop, run, virtual

__all__ = ["Deadlock", "VirtualLoop", "run", "virtual"]
