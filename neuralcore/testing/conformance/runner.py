"""Runs promises against a harness, one loop and one corner of the store for each."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable

from neuralcore.testing.conformance.bed import Bed
from neuralcore.testing.conformance.catalogue import catalogue
from neuralcore.testing.conformance.harness import Harness
from neuralcore.testing.conformance.harnesses import harness_for
from neuralcore.testing.conformance.promise import Promise, Unproven
from neuralcore.testing.conformance.report import Report, Result, Verdict

__all__ = ["judge", "prove", "run"]


def run(
    url: str,
    *,
    harness: Harness | None = None,
    only: Iterable[str] = (),
    progress: Callable[[Result], None] | None = None,
) -> Report:
    """Prove every promise of a transport: what the command ``neuralcore conformance URL`` does.

    ``only``: names of promises or of groups of them. ``progress`` is called after each promise.
    Raises what making a bus on the URL raises: UnknownScheme, MissingExtra, Unavailable.
    """
    harness = harness or harness_for(url)
    wanted = set(only)
    results = []
    for promise in catalogue():
        if not wanted or wanted & {promise.group, promise.name, str(promise)}:
            results.append(judge(promise, harness))
            if progress is not None:
                progress(results[-1])
    return Report(transport=url, capabilities=harness.capabilities().names(), results=tuple(results))


def judge(promise: Promise, harness: Harness) -> Result:
    """One row of the report."""
    lacking = promise.missing(harness.capabilities())
    began = time.perf_counter()
    verdict, detail = Verdict.PASS, ""
    if lacking:
        verdict, detail = Verdict.NOT_DECLARED, ", ".join(lacking)
    else:
        try:
            prove(promise, harness)
        except Unproven as gap:
            verdict, detail = Verdict.UNPROVEN, str(gap)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong, the promise was not kept
            verdict, detail = Verdict.FAIL, _told(error)
    return Result(
        group=promise.group,
        name=promise.name,
        promise=promise.text,
        mandatory=promise.mandatory,
        verdict=verdict,
        detail=detail,
        seconds=time.perf_counter() - began,
    )


def prove(promise: Promise, harness: Harness) -> None:
    """Raises Broken (or what the bus raised) when the promise is not kept, Unproven when that cannot be told."""

    async def check() -> None:
        async with Bed(harness, f"conformance.{secrets.token_hex(6)}") as bed:
            await promise.check(bed)

    harness.run(check)


def _told(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if isinstance(error, AssertionError) else f"{type(error).__name__}: {text}"
