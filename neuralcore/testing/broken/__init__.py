"""Transports that break one promise each, to prove that the conformance suite notices.

Each wraps any other transport. ``VARIANTS`` says which promise each one breaks.
"""

from neuralcore.testing.broken.delivering import (
    AcksEarly,
    AnswersTwice,
    CrossesGroups,
    DeliversToTwoMembers,
    ForgetsAttempts,
    ForgetsCrashes,
    IgnoresDemand,
    LosesCancelledFetches,
    MatchesTooMuch,
    ReversesBatches,
    StartsAtTheEnd,
)
from neuralcore.testing.broken.settling import (
    CountsReleases,
    ForgetsAcks,
    LeaksLeases,
    LosesDeadLetters,
    RetriesEarly,
)
from neuralcore.testing.broken.storing import (
    ChangesIds,
    CrossesChannels,
    CutsBodies,
    DropsExpiry,
    DropsHeaders,
    Duplicates,
    ForgetsBounds,
    IgnoresDelay,
    IgnoresDuplicates,
    IgnoresKeys,
    IgnoresPriority,
    LosesOneInAThousand,
)
from neuralcore.testing.broken.wrapped import Wrapped

__all__ = ["VARIANTS", "Wrapped"]

VARIANTS: dict[type[Wrapped], tuple[str, ...]] = {
    AcksEarly: ("settlement.nothing_before_the_handler_returned", "crash.killed_in_its_handler"),
    AnswersTwice: ("requests.answered_once",),
    ChangesIds: ("intact.identity",),
    CountsReleases: ("settlement.release_counts_nothing", "store.settling"),
    CrossesChannels: ("isolation.channels",),
    CrossesGroups: ("groups.every_group",),
    CutsBodies: ("intact.big",),
    DeliversToTwoMembers: ("groups.one_member",),
    DropsExpiry: ("intact.attributes", "expiry.expired"),
    DropsHeaders: ("intact.attributes",),
    Duplicates: ("intact.many",),
    ForgetsAcks: ("settlement.acked_stays_acked", "store.commits"),
    ForgetsAttempts: ("settlement.attempts_count_from_one", "store.settling"),
    ForgetsBounds: ("overflow.reject", "overflow.block"),
    ForgetsCrashes: ("crash.poison_that_kills",),
    IgnoresDelay: ("delay.delayed", "delay.not_before"),
    IgnoresDemand: ("store.demand",),
    IgnoresDuplicates: ("dedup.same_id", "dedup.idempotency_key"),
    IgnoresKeys: ("keys.order_and_one_at_a_time",),
    IgnoresPriority: ("order.strict", "store.more_urgent"),
    LeaksLeases: ("settlement.resend_on_error", "store.settling"),
    LosesCancelledFetches: ("store.cancelled_fetch",),
    LosesDeadLetters: ("retries.dead_letter", "retries.rejected"),
    LosesOneInAThousand: ("intact.many",),
    MatchesTooMuch: ("patterns.wildcards",),
    RetriesEarly: ("retries.backoff", "settlement.retry_after"),
    ReversesBatches: ("order.fifo",),
    StartsAtTheEnd: ("positions.first_and_later_groups",),
}
"""Each variant, and the promises of the suite that must fail on it."""
