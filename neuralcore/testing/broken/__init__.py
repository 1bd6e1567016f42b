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
    ForgetsExpiryOnRetry,
    HidesLosses,
    IgnoresDemand,
    LosesCancelledFetches,
    MatchesTooMuch,
    ReversesBatches,
    StartsAtTheEnd,
)
from neuralcore.testing.broken.registering import KeepsRemoved, ListsItsOwn
from neuralcore.testing.broken.settling import (
    CountsReleases,
    ForgetsAcks,
    LeaksLeases,
    LosesDeadLetters,
    RetriesEarly,
    SettlesAnyway,
)
from neuralcore.testing.broken.storing import (
    ChangesIds,
    CrossesChannels,
    CutsBodies,
    DropsExpiry,
    DropsHeaders,
    Duplicates,
    ForgetsBounds,
    ForgetsReplays,
    IgnoresDelay,
    IgnoresDuplicates,
    IgnoresKeys,
    IgnoresPriority,
    LosesOneInAThousand,
    TellsNoDuplicates,
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
    ForgetsExpiryOnRetry: ("expiry.between_attempts",),
    ForgetsReplays: ("dedup.replays_pass",),
    HidesLosses: ("crash.a_stalled_client_is_told",),
    IgnoresDelay: ("delay.delayed", "delay.not_before"),
    IgnoresDemand: ("store.demand",),
    IgnoresDuplicates: ("dedup.same_id", "dedup.idempotency_key"),
    IgnoresKeys: ("keys.order_and_one_at_a_time",),
    IgnoresPriority: ("order.strict", "store.more_urgent"),
    KeepsRemoved: ("registry.removed_group", "registry.removed_channel"),
    LeaksLeases: ("settlement.resend_on_error", "store.settling"),
    ListsItsOwn: ("registry.channels",),
    LosesCancelledFetches: ("store.cancelled_fetch",),
    LosesDeadLetters: ("retries.dead_letter", "retries.rejected"),
    LosesOneInAThousand: ("intact.many",),
    MatchesTooMuch: ("patterns.wildcards",),
    RetriesEarly: ("retries.backoff", "settlement.retry_after"),
    ReversesBatches: ("order.fifo",),
    SettlesAnyway: ("store.after_a_refusal",),
    StartsAtTheEnd: ("positions.first_and_later_groups",),
    TellsNoDuplicates: ("dedup.duplicates_are_told",),
}
"""Each variant, and the promises of the suite that must fail on it."""
