"""What a bus counts, for Prometheus."""

from neuralcore_observability.prometheus import BusCollector

__all__ = ["BusCollector"]
