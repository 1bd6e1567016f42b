import json
import platform
from importlib.metadata import distribution

import numpy as np
import pytest
from packaging.requirements import Requirement

from neuralcore import _core, _features, get_available_features, is_native_available
from neuralcore.messaging.registry import available_schemes


def test_it_says_what_is_in_use() -> None:
    features = get_available_features()
    assert features["core"] == _core.IMPLEMENTATION == ("native" if is_native_available() else "fallback")
    assert features["debug_build"] is _core.DEBUG_BUILD
    assert features["transports"] == list(available_schemes())
    assert {"memory", "native"} <= set(features["transports"])
    assert features["versions"]["python"] == platform.python_version()
    assert features["versions"]["numpy"] == np.__version__
    assert features["extras"]["testing"] is True


def test_it_is_json() -> None:
    features = get_available_features()
    assert json.loads(json.dumps(features)) == features


def test_an_extra_is_there_when_all_it_brings_is(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"rich": "1", "numpy": "2", "onnxruntime": "3", "tokenizers": "4"}
    monkeypatch.setattr(_features, "_version", installed.get)
    monkeypatch.setattr(_features, "available_schemes", lambda: ("native", "redis"))
    features = get_available_features()
    assert features["extras"] == {
        "cli": False,
        "embedding": True,
        "kafka": False,
        "observability": False,
        "redis": True,
        "sqlite": False,
        "testing": False,
    }
    assert features["versions"] == {"python": platform.python_version(), **installed}


def test_the_extras_are_those_of_the_distribution() -> None:
    declared: dict[str, set[str]] = {}
    extras = set(distribution("neuralcore-runtime").metadata.get_all("Provides-Extra") or ()) - {"all"}
    for requirement in map(Requirement, distribution("neuralcore-runtime").requires or ()):
        for extra in extras:
            if requirement.marker is not None and requirement.marker.evaluate({"extra": extra}):
                declared.setdefault(extra, set()).add(requirement.name)
    known = {name: set(packages) for name, packages in _features._EXTRAS.items()}
    transports = {name: {"neuralcore-transports"} for name in _features._TRANSPORT_EXTRAS}
    assert known | transports == declared
