"""publish_many on a store."""

import pytest

from neuralcore.messaging.errors import PublishManyFailed
from neuralcore.messaging.middleware import Middleware
from neuralcore.testing import virtual


def bodies(town):
    return [envelope.body for envelope in town.browse("jobs")]


class Watching(Middleware):
    """Each item then arrives before the next sets out."""

    async def publish(self, publication, proceed):
        return await proceed(publication)


@pytest.mark.parametrize("item", [5, None, ("jobs",), (None, 1), ("jobs", b"1", None, {"key": 1})])
@virtual
async def test_what_is_no_item_fails_alone(town, item):
    bus = await town.bus()
    with pytest.raises(PublishManyFailed) as caught:
        await bus.publish_many([("jobs", b"1"), item, ("jobs", b"2")])
    assert list(caught.value.errors) == [1]
    assert bodies(town) == [b"1", b"2"]
    await town.close()


@pytest.mark.parametrize("middleware", [(), (Watching(),)], ids=["plain", "middleware"])
@virtual
async def test_what_comes_before_an_exception_of_the_items_is_published(town, middleware):
    bus = await town.bus()
    for each in middleware:
        bus.use(each)

    def items():
        yield ("jobs", b"1")
        yield ("jobs", b"2", 10)
        raise KeyError("no more")

    with pytest.raises(KeyError, match="no more"):
        await bus.publish_many(items())
    assert bodies(town) == [b"1", b"2"]
    await town.close()
