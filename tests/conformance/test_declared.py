"""A promise is asked of what is declared, and takes nothing that is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from neuralcore.messaging.transport import Capabilities
from neuralcore.testing.conformance import MemoryHarness, run
from neuralcore.testing.memory import MemoryTransport

ALL = MemoryTransport.capabilities
SOME = {
    "groups and nothing else": Capabilities(groups=True),
    "broadcast and nothing else": Capabilities(broadcast=True),
    "all but groups": replace(ALL, groups=False),
    "all but priorities": replace(ALL, priorities=False),
    "all but keys": replace(ALL, keys=False),
    "all but delay": replace(ALL, delay=False),
}


@pytest.mark.parametrize("declared", SOME.values(), ids=SOME)
def test_a_transport_that_declares_less_keeps_all_that_it_declares(declared):
    def declaring_less(transport):
        transport.capabilities = declared
        return transport

    report = run("memory://", harness=MemoryHarness(wrap=declaring_less))
    assert report.ok, str(report)
    assert set(report.capabilities) == set(declared.names())
