"""What a check says, one line each."""

from __future__ import annotations

from dataclasses import asdict, dataclass

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    table: str
    row: str
    """Which one, by its key."""
    what: str
    repair: str
    """What repairing will do about it, or has done."""

    def __str__(self) -> str:
        place = f"{self.table} {self.row}".strip()
        return f"{place}: {self.what}; {self.repair}"

    def as_dict(self) -> dict[str, str]:
        return asdict(self)
