"""Looking after a store's file from outside: is it whole, make it whole, make it small, write down what is in it.

::

    check.py      every finding, reading only      rules.py      what must hold between the tables, and how it comes to
    repair.py     each one put right               structure.py  what SQLite itself says; the tables that there must be
    compact.py    room given back                  salvage.py    what can still be read, into a fresh file
    export.py     messages as lines of JSON        alone.py      making sure that nobody else uses the file
"""

from neuralcore_transports.sqlite.care.check import Report, check
from neuralcore_transports.sqlite.care.compact import Compacted, compact
from neuralcore_transports.sqlite.care.export import export
from neuralcore_transports.sqlite.care.findings import Finding
from neuralcore_transports.sqlite.care.repair import Repaired, repair

__all__ = ["Compacted", "Finding", "Repaired", "Report", "check", "compact", "export", "repair"]
