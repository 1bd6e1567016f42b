"""The public conformance suite: the promises that a transport must keep, and the checks that prove them.

A transport's author brings a ``Harness``, and either subclasses ``TransportConformance`` (from
``neuralcore.testing.conformance.suite``) in a pytest module, or runs ``neuralcore conformance URL``.
"""

from neuralcore.testing.conformance.bed import Bed, Collector, Gate
from neuralcore.testing.conformance.catalogue import catalogue
from neuralcore.testing.conformance.errand import errand
from neuralcore.testing.conformance.harness import Client, Harness
from neuralcore.testing.conformance.harnesses import harness_for
from neuralcore.testing.conformance.promise import Broken, Promise, Unproven
from neuralcore.testing.conformance.real import UrlHarness
from neuralcore.testing.conformance.report import Report, Result, Verdict
from neuralcore.testing.conformance.runner import judge, prove, run
from neuralcore.testing.conformance.virtual import MemoryHarness, NativeHarness, VirtualHarness

__all__ = [
    "Bed",
    "Broken",
    "Client",
    "Collector",
    "Gate",
    "Harness",
    "MemoryHarness",
    "NativeHarness",
    "Promise",
    "Report",
    "Result",
    "Unproven",
    "UrlHarness",
    "Verdict",
    "VirtualHarness",
    "catalogue",
    "errand",
    "harness_for",
    "judge",
    "prove",
    "run",
]
