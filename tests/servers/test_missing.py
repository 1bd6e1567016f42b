"""A server that is missing skips, or fails where all must be there."""

import pytest

from tests.servers import missing


def test_what_is_there_is_not_missed():
    missing.need("sh")


def test_what_is_missing_skips_and_says_how_to_get_it(monkeypatch):
    monkeypatch.delenv("NEURALCORE_SERVERS_REQUIRED", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"not found: no-such-server; make servers gets it"):
        missing.need("sh", "no-such-server")


def test_where_servers_are_required_it_fails(monkeypatch):
    monkeypatch.setenv("NEURALCORE_SERVERS_REQUIRED", "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-server"):
        missing.need("no-such-server")


def test_the_cache_is_where_the_script_puts_it(monkeypatch, tmp_path):
    (tmp_path / "redis-8.2").mkdir()
    (tmp_path / "redis-8.2" / "redis-server").touch()
    monkeypatch.setenv("NEURALCORE_SERVERS", str(tmp_path))
    assert missing.redis_binary("8.2") == tmp_path / "redis-8.2" / "redis-server"
    monkeypatch.setenv("NEURALCORE_SERVERS", str(tmp_path / "elsewhere"))
    with pytest.raises(FileNotFoundError, match="make servers"):
        missing.redis_binary("8.2")
