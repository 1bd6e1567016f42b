"""What is waited for when topics are made, without a broker."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from neuralcore_transports.kafka.administration import Administration


class Opening:
    """A broker that knows of a new topic before it can take anything for it."""

    def __init__(self, late: dict[int, int]) -> None:
        """``late``: how often a partition is asked in vain."""
        self.late = late

    def create_topics(self, topics: list[Any], **_: Any) -> dict[str, Future[None]]:
        return {each.topic: _done(None) for each in topics}

    def create_partitions(self, topics: list[Any], **_: Any) -> dict[str, Future[None]]:
        return {"orders": _done(None)}

    def list_topics(self, topic: str | None = None, timeout: float = 0) -> Any:
        partitions = {number: SimpleNamespace(leader=1) for number in range(3)}
        return SimpleNamespace(topics={"orders": SimpleNamespace(error=None, partitions=partitions)})

    def list_offsets(self, wanted: dict[Any, Any], **_: Any) -> dict[Any, Future[Any]]:
        return {each: self._offset(each.partition) for each in wanted}

    def _offset(self, partition: int) -> Future[Any]:
        if self.late.get(partition, 0):
            self.late[partition] -= 1
            return _failed(KafkaError.UNKNOWN_TOPIC_OR_PART)
        return _done(SimpleNamespace(offset=0))


def _done(result: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(result)
    return future


def _failed(code: int) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(KafkaException(KafkaError(code)))
    return future


def test_a_topic_is_made_when_each_of_its_partitions_is_open():
    broker = Opening({0: 1, 2: 3})
    made = Administration(lambda: broker, lambda group: None, timeout=5, where="here")  # type: ignore[arg-type,return-value]
    assert made.create({"orders": 3}, None, {}) == {"orders": 3}
    assert broker.late == {0: 0, 2: 0}


def test_more_partitions_are_there_when_each_of_them_is_open():
    broker = Opening({2: 2})
    made = Administration(lambda: broker, lambda group: None, timeout=5, where="here")  # type: ignore[arg-type,return-value]
    made.grow(["orders"], 3)
    assert broker.late == {2: 0}
