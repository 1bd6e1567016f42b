"""What can be wrong with the brokers.

::

    TransportError
    ├── KafkaRefused        the brokers do not let us: credentials, rights, a policy
    ├── NotOurs             the registry is somebody else's, or another version's
    └── Unavailable         nobody answers, or not as they should now: it may pass
"""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError, KafkaException

from neuralcore.messaging.errors import TransportError, Unavailable

__all__ = [
    "KafkaRefused",
    "NotOurs",
    "code_of",
    "group_is_changing",
    "group_is_refused",
    "is_refusing",
    "position_is_gone",
    "record_is_refused",
    "translated",
]


class KafkaRefused(TransportError):
    """The brokers do not let this client do what it must."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"Kafka at {where} refuses: {reason}")
        self.where = where
        self.reason = reason


class NotOurs(TransportError):
    """A topic of ours holds something else."""

    def __init__(self, where: str, topic: str, reason: str) -> None:
        super().__init__(f"the topic {topic!r} in Kafka at {where} is not a bus's: {reason}; use another prefix")
        self.where = where
        self.topic = topic
        self.reason = reason


_REFUSING: Final = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.ILLEGAL_SASL_STATE,
        KafkaError.INVALID_COMMIT_OFFSET_SIZE,
        KafkaError.INVALID_CONFIG,
        KafkaError.INVALID_PARTITIONS,
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.INVALID_SESSION_TIMEOUT,
        KafkaError.OFFSET_METADATA_TOO_LARGE,
        KafkaError.POLICY_VIOLATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
    }
)
_MENDING: Final = {
    KafkaError.INVALID_SESSION_TIMEOUT: "lease= has to be between group.min.session.timeout.ms and "
    "group.max.session.timeout.ms of the brokers, which are 6 s and 30 minutes by default",
}
_REFUSED: Final = frozenset(
    {
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.POLICY_VIOLATION,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
    }
)
_CHANGING: Final = (KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS, KafkaError.UNKNOWN_MEMBER_ID)
_GONE: Final = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)


def position_is_gone(error: KafkaError | KafkaException) -> bool:
    """What was to be read next is not there any more, or not yet."""
    return (error.code() if isinstance(error, KafkaError) else code_of(error)) in _GONE


def is_refusing(error: KafkaError) -> bool:
    """The brokers will say so again, until somebody has changed something there."""
    return error.code() in _REFUSING


def group_is_refused(error: KafkaError) -> bool:
    """Whatever it reads; a topic may be refused to it alone."""
    return error.code() in (KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.INVALID_SESSION_TIMEOUT)


def record_is_refused(error: KafkaError) -> bool:
    """Whoever sends it again is told the same."""
    return error.code() in _REFUSED


def group_is_changing(error: KafkaException) -> bool:
    """Its next generation will be known a little later."""
    return code_of(error) in _CHANGING


def code_of(error: BaseException) -> int:
    """The client library's code of an exception; 0 for one that has none."""
    found = error.args[0] if isinstance(error, KafkaException) and error.args else None
    return found.code() if isinstance(found, KafkaError) else 0


def translated(error: Exception | KafkaError, where: str) -> Exception:
    """The same as an error of ours."""
    found = error.args[0] if isinstance(error, KafkaException) and error.args else error
    if not isinstance(found, KafkaError):
        return Unavailable("kafka", f"{where}: {found}")
    if is_refusing(found):
        return KafkaRefused(where, "; ".join(filter(None, (found.str(), _MENDING.get(found.code())))))
    return Unavailable("kafka", f"{where}: {found.str()}")
