"""What the distributions say of themselves agrees, and installing the core pulls only NumPy and msgspec."""

from __future__ import annotations

import ast
import asyncio
import re
import sys
from importlib.metadata import EntryPoint, distribution, entry_points
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import neuralcore
from neuralcore import MessageBus, Transport

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("neuralcore-runtime", "neuralcore-transports", "neuralcore-observability")


def test_the_core_depends_on_numpy_and_msgspec_only() -> None:
    requirements = [Requirement(line) for line in distribution("neuralcore-runtime").requires or ()]
    always = {r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})}
    assert always == {"numpy", "msgspec"}


def test_the_extras_are_the_documented_ones() -> None:
    extras = set(distribution("neuralcore-runtime").metadata.get_all("Provides-Extra") or ())
    assert extras == {"cli", "testing", "sqlite", "redis", "kafka", "embedding", "observability", "all"}


def test_all_versions_agree() -> None:
    cargo = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    found = {distribution(name).version for name in NAMES}
    found |= {neuralcore.__version__, *re.findall(r'^version = "(.*)"$', cargo, re.MULTILINE)}
    assert found == {neuralcore.__version__}


def test_the_outer_distributions_need_this_very_core() -> None:
    for name in NAMES[1:]:
        needed = [Requirement(line) for line in distribution(name).requires or ()]
        assert f"neuralcore-runtime=={neuralcore.__version__}" in map(str, needed)


def test_the_licence_is_in_every_distribution() -> None:
    texts = {(ROOT / folder / "LICENSE").read_text(encoding="utf-8") for folder in (".", "transports", "observability")}
    assert len(texts) == 1
    assert "NeuralCore contributors" in texts.pop()


def test_the_command_is_installed() -> None:
    (script,) = entry_points(group="console_scripts", name="neuralcore")
    assert script.value == "neuralcore.cli:main"


def test_transports_come_through_their_distributions_doors() -> None:
    owners = {entry.name: entry.dist.name for entry in entry_points(group="neuralcore.transports") if entry.dist}
    assert owners == {
        "native": "neuralcore-runtime",
        "kafka": "neuralcore-transports",
        "memory": "neuralcore-transports",
        **dict.fromkeys(("redis", "redis+cluster", "redis+unix", "rediss", "rediss+cluster"), "neuralcore-transports"),
        "sqlite": "neuralcore-transports",
    }


def url_of(scheme: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if scheme == "rediss":
        server = request.getfixturevalue("start_redis")(tls=True)
        return f"{server.url()}?tls_ca={server.certificates.ca}"
    if scheme == "redis+cluster":
        return str(request.getfixturevalue("redis_cluster").url(scheme))
    if scheme == "kafka":
        return f"kafka://{request.getfixturevalue('kafka_broker').bootstrap}/doors"
    if scheme.startswith("redis"):
        return str(request.getfixturevalue("redis_server").url(scheme))
    return {"native": "native://", "memory": "memory://", "sqlite": f"sqlite://{tmp_path}/bus.db"}[scheme]


DOORS = [door for door in entry_points(group="neuralcore.transports") if door.name != "rediss+cluster"]
"""A cluster with TLS is both of what the others are."""


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
async def test_a_bus_works_on_the_url_of_every_door(
    door: EntryPoint, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    assert issubclass(door.load(), Transport)
    greeted: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with MessageBus(url_of(door.name, tmp_path, request)) as bus:
        bus.subscribe("greeting", lambda message: greeted.set_result(message.payload), blocking=False, group="guests")
        await bus.publish("greeting", "hello")
        assert await greeted == "hello"


def test_python_files_parse_on_the_oldest_supported_version() -> None:
    oldest = (3, 10)
    assert sys.version_info >= oldest
    for path in sorted((ROOT / "neuralcore").rglob("*.py")):
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=oldest)
