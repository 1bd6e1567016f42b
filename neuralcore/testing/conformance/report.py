"""What a run of the suite found, for people and for machines."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import Any

__all__ = ["Report", "Result", "Verdict"]


class Verdict(Enum):
    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    NOT_DECLARED = "not declared"
    UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    group: str
    name: str
    promise: str
    mandatory: bool
    verdict: Verdict
    detail: str = ""
    """Why it failed, what is not declared, or what the harness cannot drive."""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "group": self.group,
            "name": self.name,
            "promise": self.promise,
            "mandatory": self.mandatory,
            "verdict": self.verdict.value,
            "detail": self.detail,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    transport: str
    capabilities: tuple[str, ...]
    results: tuple[Result, ...]

    @property
    def ok(self) -> bool:
        """No promise is broken, and no mandatory one is unproven."""
        return not any(
            result.verdict is Verdict.FAIL or (result.mandatory and result.verdict is Verdict.UNPROVEN)
            for result in self.results
        )

    def counts(self) -> dict[str, int]:
        found = Counter(result.verdict for result in self.results)
        return {verdict.value: found[verdict] for verdict in Verdict}

    def to_dict(self) -> dict[str, Any]:
        return {
            "transport": self.transport,
            "capabilities": list(self.capabilities),
            "ok": self.ok,
            "counts": self.counts(),
            "results": [result.to_dict() for result in self.results],
        }

    def __str__(self) -> str:
        """A plain table."""
        lines = [f"{self.transport}: {', '.join(self.capabilities) or 'nothing declared'}"]
        group = ""
        for result in self.results:
            if result.group != group:
                group = result.group
                lines.append(f"\n{group}")
            flag = "*" if result.mandatory else " "
            lines.append(f"  {result.verdict.value:<12} {flag} {result.promise}")
            if result.detail:
                lines.append(f"  {'':<12}   {result.detail}")
        summary = ", ".join(f"{count} {verdict}" for verdict, count in self.counts().items())
        return "\n".join([*lines, "", f"{summary} (* mandatory)"])
