from typing import get_args

from neuralcore.messaging import headers


def test_the_names_on_the_wire_are_pinned() -> None:
    assert {name: getattr(headers, name) for name in headers.__all__ if name != "DeadLetterReason"} == {
        "DEAD_LETTER_PREFIX": "_dlq.",
        "DLQ_ATTEMPTS": "nc-dlq-attempts",
        "DLQ_ERROR": "nc-dlq-error",
        "DLQ_ERROR_TYPE": "nc-dlq-error-type",
        "DLQ_GROUP": "nc-dlq-group",
        "DLQ_ID": "nc-dlq-id",
        "DLQ_ORIGIN": "nc-dlq-origin",
        "DLQ_PUBLISHED": "nc-dlq-first-time",
        "DLQ_REASON": "nc-dlq-reason",
        "DLQ_TIME": "nc-dlq-time",
        "MAX_ERROR_TEXT": 2000,
        "PREFIX": "nc-",
        "REPLAY": "nc-replay",
        "REPLAY_GROUP": "nc-replay-group",
        "REPLY_ERROR": "nc-reply-error",
        "REPLY_ERROR_TYPE": "nc-reply-error-type",
        "TRACEPARENT": "traceparent",
        "TRACESTATE": "tracestate",
    }


def test_the_reasons_are_pinned() -> None:
    assert get_args(headers.DeadLetterReason) == ("attempts", "rejected", "undecodable", "expired", "poison")
