"""Real Redis servers do what they are made for."""

import pytest
import redis

from tests.servers.missing import ALL_REDIS_VERSIONS
from tests.servers.ports import until

versions = pytest.mark.parametrize("version", ALL_REDIS_VERSIONS)


@versions
@pytest.mark.parametrize("appendfsync", ["always", "everysec", "no"])
def test_data_survive_a_kill(start_redis, version, appendfsync):
    server = start_redis(version=version, appendfsync=appendfsync)
    with server.client() as client:
        assert client.info("server")["redis_version"].startswith(version)
        client.xadd("stream", {"field": "value"}, id="1-1")
        server.restart(kill=True)
        assert client.xrange("stream") == [("1-1", {"field": "value"})]


def test_without_a_log_they_do_not(start_redis):
    server = start_redis(appendfsync=None)
    with server.client() as client:
        client.set("key", "value")
        server.restart()
        assert client.get("key") is None


def test_a_paused_one_answers_when_it_goes_on(start_redis):
    server = start_redis()
    with server.client(socket_timeout=0.2) as client:
        server.pause()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        server.resume()
        assert client.ping()


def test_the_newer_one_has_newer_commands(start_redis):
    with start_redis(version="8.2").client() as client:
        client.xgroup_create("stream", "group", id="0", mkstream=True)
        client.xadd("stream", {"field": "value"}, id="1-1")
        client.xreadgroup("group", "me", {"stream": ">"})
        assert client.execute_command("XACKDEL", "stream", "group", "IDS", 1, "1-1") == [1]


def test_the_socket(start_redis):
    server = start_redis(unixsocket=True)
    with redis.Redis.from_url(server.url("unix")) as client:
        assert client.ping()
    assert server.url("redis+unix").startswith("redis+unix:///")
    path = server.socket_path
    server.kill()
    assert not path.exists()


def test_a_socket_in_a_deep_folder(tmp_path):
    from tests.servers.redis import RedisServer

    with (
        RedisServer(tmp_path / ("deep" * 25), unixsocket=True) as server,
        redis.Redis.from_url(server.url("unix")) as client,
    ):
        assert client.ping()


def test_a_password_and_users(start_redis):
    server = start_redis(password='a "secret" @/:', users={"bus": "on >other ~bus:* &* +@all -@dangerous"})
    with server.client() as client:
        assert client.ping()
    with redis.Redis.from_url(server.url(user="bus", password="other")) as client:
        assert client.set("bus:key", "value")
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.get("key")
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.flushall()
    with redis.Redis.from_url(server.url(password="wrong")) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_tls(start_redis):
    server = start_redis(tls=True, password="secret")
    assert server.url().startswith("rediss://")
    with server.client() as client:
        client.set("key", "value")
    with redis.Redis.from_url(server.url()) as client, pytest.raises(redis.ConnectionError, match="certificate"):
        client.ping()
    made = server.certificates
    with server.client(ssl_certfile=str(made.client), ssl_keyfile=str(made.client_key)) as client:
        assert client.get("key") == "value"


def test_full_memory(start_redis):
    server = start_redis(maxmemory="4mb", appendfsync=None)
    with server.client() as client, pytest.raises(redis.exceptions.OutOfMemoryError):
        client.set("key", "x" * 5_000_000)


@pytest.mark.parametrize("tls", [False, True])
def test_a_replica_follows_and_takes_over(start_redis, tls):
    master = start_redis(password="secret", tls=tls)
    replica = start_redis(password="secret", tls=tls, replica_of=master)
    with master.client() as client, replica.client() as other:
        master.wait_for_replicas()
        client.set("key", "value")
        assert client.wait(1, 5000) == 1
        with pytest.raises(redis.exceptions.ReadOnlyError):
            other.set("key", "value")
        master.kill()
        other.execute_command("REPLICAOF", "NO", "ONE")
        assert other.set("key", other.get("key") + "!")


@pytest.mark.parametrize("redis_server", ALL_REDIS_VERSIONS, indirect=True)
def test_the_shared_one(redis_server):
    with redis_server.client() as client:
        assert client.ping()


def test_the_shared_one_is_killed(redis_server):
    redis_server.kill()


def test_the_shared_one_runs_for_the_next_test(redis_server):
    assert redis_server.answers()


@pytest.mark.slow
def test_a_cluster_survives_its_master(redis_cluster):
    with redis_cluster.client() as client:
        for index in range(100):
            client.set(f"key{index}", index)
        owner = redis_cluster.owner("key7")
        replica = redis_cluster.replica_of(owner)
        until(lambda: owner.info("replication")["slave0"]["lag"] <= 1, timeout=5, what="the replica to follow")
        owner.kill()
        redis_cluster.wait_ok(without=[owner])
        assert redis_cluster.owner("key7") is replica
        assert [client.get(f"key{index}") for index in range(100)] == [str(index) for index in range(100)]


@pytest.mark.slow
def test_a_paused_master_comes_back_as_a_replica(redis_cluster):
    owner = redis_cluster.owner("key")
    owner.pause()
    redis_cluster.wait_ok(without=[owner])
    redis_cluster.heal()
    assert len(redis_cluster.masters()) == 3
    assert owner not in redis_cluster.masters()


@pytest.mark.slow
def test_a_cluster_knows_itself_after_a_restart(redis_cluster):
    with redis_cluster.client() as client:
        client.set("kept", "value")
    redis_cluster.restart()
    with redis_cluster.client() as client:
        assert client.get("kept") == "value"
