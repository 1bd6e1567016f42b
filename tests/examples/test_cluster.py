"""Three hosts over Redis and over Kafka: restarted one by one, one killed, one cut off, and nothing is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from examples.cluster.judge import Verdict
from examples.cluster.network import NetworkError
from examples.cluster.story import Cluster, tell
from tests.servers.missing import need

LEASE = 3.0


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("kind", "server"), [("redis", "redis-7.0"), ("kafka", "kafka")])
def test_hosts_come_and_go_and_nothing_is_lost(kind: str, server: str, tmp_path: Path) -> None:
    need(server, "ip")
    if os.geteuid():
        pytest.skip("network namespaces take root")
    try:
        with Cluster(kind, tmp_path, lease=LEASE, say=print) as cluster:
            acts = tell(cluster, seconds=1.0)
    except NetworkError as refused:
        pytest.skip(f"no network namespaces here: {refused}")
    verdict = Verdict(cluster.evidence, acts, lease=LEASE)
    print(verdict.table())
    assert [check.line() for check in verdict.checks() if not check.met] == []

    assert verdict.lost == set()
    assert [restart.host for restart in acts.restarts] == ["h1", "h2", "h3"]
    assert cluster.evidence.unfinished(set().union(*(restart.pids for restart in acts.restarts))) == []
    assert all(verdict.answered(host)[1] > 0 for host in ("h1", "h2", "h3"))
    killed, cut = verdict.take_overs
    assert (killed.outage.kind, cut.outage.kind) == ("killed", "cut off")
    assert 0 < max(killed.seconds) <= killed.allowed
    assert 0 < max(cut.seconds) <= cut.allowed
