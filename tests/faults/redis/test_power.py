"""Row 4: the power goes, and comes again. What Redis synced before it answered is there, and nothing else need be."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.faults.aftermath import Found, judged, summary
from tests.faults.plan import SEED, needs_compiler, some, tell, times
from tests.faults.powercut import Cut, Mode, PowerCut
from tests.faults.redis.stage import RedisStage
from tests.servers.missing import need
from tests.servers.process import NotReadyError
from tests.servers.redis import RedisServer

pytestmark = [needs_compiler, pytest.mark.timeout(600)]

LOG = "appendonlydir"


@dataclass(frozen=True)
class Promise:
    """``synced``: before a publish is confirmed."""

    version: str
    appendfsync: Literal["always", "everysec", "no"]
    query: str
    synced: bool
    at_once: int = 1
    """Publishes of a producer: many, where each waits for the sync of the next second."""

    def __str__(self) -> str:
        return f"Redis {self.version}, appendfsync {self.appendfsync}{self.query.replace('&', ', ')}"

    def server(self, folder: Path, **options: Any) -> RedisServer:
        """Which never writes its log anew: what buffered streams write escapes the shim."""
        rewrite = {"auto-aof-rewrite-percentage": "0"}
        return RedisServer(folder, version=self.version, appendfsync=self.appendfsync, options=rewrite, **options)


PROMISES = [
    Promise("7.0", "always", "", synced=True),
    Promise("8.2", "everysec", "&durability=disk", synced=True, at_once=64),
    Promise("7.0", "everysec", "", synced=False),
    Promise("7.0", "no", "", synced=False),
]


@dataclass
class Run:
    folder: Path
    promise: Promise
    power: PowerCut

    def found(self, mode: Mode, count: int) -> list[Found]:
        results = []
        for cut in self.power.cuts(count, SEED):
            target = self.folder / f"{mode}-{cut.position}"
            cut.image(target / LOG, mode, SEED)
            results.append(self._judge(target, cut))
            shutil.rmtree(target)
        return results

    def _judge(self, folder: Path, cut: Cut) -> Found:
        server = self.promise.server(folder)
        try:
            with server, RedisStage(folder, server) as stage:
                return judged(cut, list(stage.stored().elements()))
        except NotReadyError as error:
            return judged(cut, (), damage=str(error))


def run(folder: Path, promise: Promise) -> Run:
    """Producers and a consumer, of which some are killed on the way. The log is there before, and so has its name."""
    promise.server(folder / "server").start().stop()
    power = PowerCut(folder / "server" / LOG)
    with (
        promise.server(folder / "server", env=power.environment()) as server,
        RedisStage(folder, server, query=f"lease=1&timeout=5{promise.query}", env=power.environment()) as stage,
    ):
        stage.consumer(work=0.002)
        at_once = promise.at_once
        first = stage.producer(size=500, pause=0.002, at_once=at_once)
        second = stage.producer(size=3000, pause=0.004, at_once=2 * at_once)
        for _ in range(times(1, 5)):
            first.until(lambda lines: len(lines) > times(80, 200))
            stage.strike(first, stage.moments.next(0.0, 0.05), "kill -9 producer")
            first = stage.producer(size=500, pause=0.002, at_once=at_once)
        first.until(lambda lines: len(lines) > times(200, 600))
        second.until(lambda lines: len(lines) > 20)
        server.kill()
    return Run(folder, promise, power)


@pytest.fixture(scope="module", params=some(3, PROMISES), ids=str)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    need(f"redis-{request.param.version}")
    return run(tmp_path_factory.mktemp("power"), request.param)


@pytest.mark.parametrize("mode", ["none", "all"])
def test_what_is_left_after_a_cut(finished: Run, mode: Mode) -> None:
    found = finished.found(mode, times(15, 100))
    tell(4, f"power cut, {finished.promise}, unsynced writes kept: {mode}", summary(found))
    assert [each.damage for each in found if each.damage] == []
    assert sum(each.phantom for each in found) == 0
    assert max(each.acked for each in found) > 50
    if finished.promise.synced or mode == "all":
        assert [each for each in found if each.lost] == []
    else:
        assert any(each.lost for each in found), "a check that finds nothing here would find nothing where it is synced"


def test_no_write_escaped(finished: Run) -> None:
    assert finished.power.missed() == []
