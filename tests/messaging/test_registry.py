import sys
import types
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from neuralcore.messaging import registry
from neuralcore.messaging.errors import MissingExtra, TransportError, UnknownScheme
from neuralcore.messaging.local import NativeTransport
from neuralcore.messaging.registry import GROUP, available_schemes, installed_schemes, schemes_with, transport_for
from neuralcore.messaging.transport import Capabilities
from neuralcore.testing.memory import MemoryTransport


class Custom(NativeTransport):
    scheme = "custom"
    capabilities = Capabilities(durable=True, dedup="store")

    def __init__(self, url: str) -> None:
        self.url = url

    @classmethod
    def from_url(cls, url: str) -> "Custom":
        return cls(url)


def plain_factory(url: str) -> Custom:
    return Custom(url)


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is installed: scheme -> value of its entry point."""
    found: dict[str, str] = {}

    def entry_points(*, group: str) -> list[EntryPoint]:
        assert group == GROUP == "neuralcore.transports"
        return [EntryPoint(name, value, group) for name, value in found.items()]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    module = types.ModuleType("nc_custom_transport")
    module.__dict__.update(Custom=Custom, plain_factory=plain_factory, broken=lambda url: url, password="secret")
    monkeypatch.setitem(sys.modules, "nc_custom_transport", module)
    return found


def test_the_built_in_ones_need_no_metadata(entries: dict[str, str]) -> None:
    assert installed_schemes() == ("memory", "native")
    assert type(transport_for("native://")) is NativeTransport
    assert type(transport_for("memory://")) is MemoryTransport


def test_an_instance_is_taken_as_it_is() -> None:
    transport = Custom("x")
    assert transport_for(transport) is transport


@pytest.mark.parametrize("value", ["nc_custom_transport:Custom", "nc_custom_transport:plain_factory"])
def test_a_third_party_comes_through_its_entry_point(entries: dict[str, str], value: str) -> None:
    entries["custom"] = value
    transport = transport_for("custom://host/path?x=1")
    assert isinstance(transport, Custom)
    assert transport.url == "custom://host/path?x=1"
    assert installed_schemes() == ("custom", "memory", "native")


def test_an_entry_point_replaces_a_built_in_one(entries: dict[str, str]) -> None:
    entries["memory"] = "nc_custom_transport:Custom"
    assert isinstance(transport_for("memory://"), Custom)


def test_schemes_ignore_case(entries: dict[str, str]) -> None:
    entries["Custom"] = "nc_custom_transport:Custom"
    assert isinstance(transport_for("CUSTOM://host"), Custom)


def test_an_unknown_scheme_names_what_is_installed(entries: dict[str, str]) -> None:
    entries["custom"] = "nc_custom_transport:Custom"
    with pytest.raises(UnknownScheme) as caught:
        transport_for("zmq://host")
    assert caught.value.scheme == "zmq"
    assert caught.value.installed == ("custom", "memory", "native")
    assert caught.value.pip is None
    assert "custom, memory, native" in str(caught.value)


@pytest.mark.parametrize("scheme", ["redis", "kafka", "sqlite"])
def test_an_unknown_scheme_of_ours_names_the_pip_command(entries: dict[str, str], scheme: str) -> None:
    with pytest.raises(UnknownScheme) as caught:
        transport_for(f"{scheme}://host")
    assert caught.value.pip == f"pip install 'neuralcore-runtime[{scheme}]'"
    assert caught.value.pip in str(caught.value)


@pytest.mark.parametrize("url", ["", "redis", "redis:host", "://host", "1x://host", "a b://host"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(TransportError, match="begins with scheme://"):
        transport_for(url)


def test_what_is_neither_url_nor_transport() -> None:
    with pytest.raises(TypeError, match="got int"):
        transport_for(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["zmq://user:hunter2@host", "user:hunter2@host", "user:hunter2@host://x"])
def test_no_error_repeats_a_password(entries: dict[str, str], url: str) -> None:
    with pytest.raises(TransportError) as caught:
        transport_for(url)
    assert "hunter2" not in str(caught.value)


@pytest.fixture
def needy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that imports a package nobody has."""
    (tmp_path / "nc_needy.py").write_text("import nc_absent_client.aio\n")
    (tmp_path / "nc_typo.py").write_text("import nc_typo.missing\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "nc_needy:Transport"


@pytest.mark.parametrize(
    ("scheme", "pip"),
    [("redis", "pip install 'neuralcore-runtime[redis]'"), ("thirdparty", "pip install nc_absent_client")],
)
def test_a_missing_package_names_the_pip_command(entries: dict[str, str], needy: str, scheme: str, pip: str) -> None:
    entries[scheme] = needy
    with pytest.raises(MissingExtra) as caught:
        transport_for(f"{scheme}://host")
    assert (caught.value.package, caught.value.pip) == ("nc_absent_client", pip)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_package_missing_when_the_transport_is_made_is_named_too(entries: dict[str, str], monkeypatch: Any) -> None:
    def lazy(url: str) -> Any:
        import nc_absent_client  # noqa: F401

    monkeypatch.setattr(sys.modules["nc_custom_transport"], "lazy", lazy, raising=False)
    entries["redis"] = "nc_custom_transport:lazy"
    with pytest.raises(MissingExtra, match="nc_absent_client") as caught:
        transport_for("redis://host")
    assert caught.value.pip == "pip install 'neuralcore-runtime[redis]'"


def test_a_broken_transport_is_not_called_a_missing_package(entries: dict[str, str], needy: str) -> None:
    entries["typo"] = "nc_typo:Transport"
    with pytest.raises(ModuleNotFoundError, match="nc_typo"):
        transport_for("typo://host")


def test_a_factory_must_make_a_transport(entries: dict[str, str]) -> None:
    entries["custom"] = "nc_custom_transport:broken"
    with pytest.raises(TransportError, match="custom made a str, which is not a Transport"):
        transport_for("custom://user:hunter2@host")


def test_capabilities_are_found_among_what_can_be_loaded(entries: dict[str, str], needy: str) -> None:
    entries |= {
        "custom": "nc_custom_transport:Custom",
        "plain": "nc_custom_transport:plain_factory",
        "redis": needy,
        "gone": "nc_custom_transport:Gone",
    }
    assert available_schemes() == ("custom", "memory", "native", "plain")
    assert "custom" in schemes_with("durable")
    assert "custom" in schemes_with("dedup")
    assert "native" not in schemes_with("durable")
    assert {"memory", "native"} <= set(schemes_with("groups"))
    assert schemes_with("teleport") == ()
    assert "memory" in schemes_with("dedup=store")
    assert schemes_with("dedup=owner") == ()
