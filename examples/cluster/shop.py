"""What the processes of the shop have in common: channels, groups, payloads."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ORDERS", "PACKING", "PRICES", "PRICING", "Order", "Quote"]

ORDERS, PACKING = "orders.new", "packing"
PRICES, PRICING = "prices.lookup", "pricing"


@dataclass(frozen=True)
class Order:
    item: str
    count: int


@dataclass(frozen=True)
class Quote:
    price: float
    host: str
    """That answered."""
