"""Faults between the end of a handler and the store."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from neuralcore.messaging.headers import DEAD_LETTER_PREFIX
from neuralcore.messaging.transport import Envelope, Outcome, Settlement
from neuralcore.testing.broken.wrapped import Wrapped


class LeaksLeases(Wrapped):
    """What is not acked stays leased."""

    def settling(self, settlement: Settlement) -> Settlement | None:
        return None if settlement.outcome in (Outcome.NACK, Outcome.RELEASE) else settlement


class ForgetsAcks(Wrapped):
    """Says that an ack is stored, and does not store it."""

    def settling(self, settlement: Settlement) -> Settlement | None:
        return None if settlement.outcome is Outcome.ACK else settlement


class CountsReleases(Wrapped):
    def settling(self, settlement: Settlement) -> Settlement | None:
        return replace(settlement, outcome=Outcome.NACK) if settlement.outcome is Outcome.RELEASE else settlement


class RetriesEarly(Wrapped):
    def settling(self, settlement: Settlement) -> Settlement | None:
        return replace(settlement, delay_ns=settlement.delay_ns // 2)


class LosesDeadLetters(Wrapped):
    """Settles the original, and forgets what was to be stored with it."""

    def publishing(self, envelope: Envelope) -> Sequence[Envelope]:
        return () if envelope.channel.startswith(DEAD_LETTER_PREFIX) else (envelope,)


class SettlesAnyway(Wrapped):
    """Settles what comes after a publish whether that one was stored or not."""

    def settling(self, settlement: Settlement) -> Settlement | None:
        return replace(settlement, after=None)


class FreesKeys(Wrapped):
    """What waits for its retry does not hold its key."""

    def settling(self, settlement: Settlement) -> Settlement | None:
        return replace(settlement, pass_key=True)
