"""The public surface: adding to it or taking from it is a decision, and shows here."""

import importlib
import pkgutil

import pytest

import neuralcore
from neuralcore import messaging
from neuralcore.messaging import errors

NAMES = {
    "BusMetrics",
    "Capabilities",
    "ChannelConfig",
    "ChannelMetrics",
    "Clock",
    "CloseReport",
    "Codec",
    "Consumer",
    "Latency",
    "Limits",
    "Message",
    "MessageBus",
    "Middleware",
    "Overflow",
    "Priority",
    "Publication",
    "RateLimit",
    "Reject",
    "Retention",
    "Retry",
    "RetryPolicy",
    "Stream",
    "Subscription",
    "SubscriptionMetrics",
    "Transport",
}


def test_the_public_names_of_messaging() -> None:
    assert set(messaging.__all__) == NAMES | set(errors.__all__)


def test_the_package_has_the_same_and_a_little_more() -> None:
    more = {"Features", "__version__", "get_available_features", "is_native_available"}
    assert set(neuralcore.__all__) == set(messaging.__all__) | more
    for name in messaging.__all__:
        assert getattr(neuralcore, name) is getattr(messaging, name)


def _modules() -> list[str]:
    found = pkgutil.iter_modules(messaging.__path__, "neuralcore.messaging.")
    return [module.name for module in found]


@pytest.mark.parametrize("name", _modules())
def test_every_module_says_what_it_offers(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        assert hasattr(module, public)
