import pytest

from neuralcore.messaging.errors import PriorityOutOfRange
from neuralcore.messaging.priority import Priority, check_priority


def test_the_named_priorities_are_pinned() -> None:
    assert {p.name: p.value for p in Priority} == {
        "CRITICAL": 0,
        "HIGH": 25,
        "NORMAL": 50,
        "LOW": 75,
        "BACKGROUND": 100,
    }


@pytest.mark.parametrize("priority", [0, 1, 255, Priority.LOW])
def test_a_priority_in_range_becomes_a_plain_int(priority: int) -> None:
    assert check_priority(priority) == priority
    assert type(check_priority(priority)) is int


@pytest.mark.parametrize("priority", [-1, 256, 2**70, 1.0, "5", None, True])
def test_anything_else_is_refused(priority: object) -> None:
    with pytest.raises(PriorityOutOfRange) as caught:
        check_priority(priority)
    assert caught.value.priority is priority
