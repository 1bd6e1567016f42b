"""publish_many where something stands between the bus and its mailboxes."""

import pytest

from neuralcore.messaging.errors import PublishManyFailed
from neuralcore.messaging.middleware import Middleware
from neuralcore.testing import virtual
from neuralcore.testing.bus import virtual_bus


class Watching(Middleware):
    async def publish(self, publication, proceed):
        return await proceed(publication)


@pytest.mark.parametrize("item", [5, None, ("jobs",), (None, 1), ("jobs", 1, None, 5)])
@virtual
async def test_what_is_no_item_fails_alone(item):
    async with virtual_bus() as bus:
        bus.use(Watching())
        seen = []
        bus.subscribe("jobs", lambda message: seen.append(message.payload), blocking=False)
        with pytest.raises(PublishManyFailed) as caught:
            await bus.publish_many([("jobs", 1), item, ("jobs", 2)])
        assert list(caught.value.errors) == [1]
    assert seen == [1, 2]


@virtual
async def test_a_limit_of_the_channel_refuses_only_what_is_above_it():
    async with virtual_bus() as bus:
        bus.create_channel("jobs", max_payload=3)
        seen = []
        bus.subscribe("jobs", lambda message: seen.append(message.payload), blocking=False)
        with pytest.raises(PublishManyFailed) as caught:
            await bus.publish_many([("jobs", b"1"), 5, ("jobs", b"four"), ("jobs", b"2", 60)])
        assert list(caught.value.errors) == [1, 2]
    assert seen == [b"1", b"2"]
