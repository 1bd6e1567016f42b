"""Server processes end with the tests, and say what went wrong."""

import os
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest

from tests.faults.processes import Worker
from tests.servers.missing import need
from tests.servers.ports import HOST, LateError, free_port, until
from tests.servers.process import NotReadyError, ServerProcess

LISTENER = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
while True:
    listener.accept()[0].close()
"""

STARTS_ONE = """
import sys
from pathlib import Path
from tests.servers.test_process import Listener
server = Listener(Path(sys.argv[1])).start()
print(server.pid, flush=True)
if sys.argv[2] == "stay":
    sys.stdin.readline()
"""


class Listener(ServerProcess):
    """The least that is a server."""

    def __init__(self, folder: Path, script: str = LISTENER, **options) -> None:
        super().__init__("listener", folder, **options)
        self.port = free_port()
        self.script = script

    def command(self) -> list[str]:
        return [sys.executable, "-c", self.script, str(self.port)]

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0


@pytest.fixture(autouse=True)
def linux() -> None:
    need()


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_serves_until_it_is_stopped(tmp_path):
    with Listener(tmp_path) as server:
        assert server.answers()
        assert os.getpgid(server.pid) == server.pid
        assert "listening" in server.log
    assert not server.running
    assert not server.answers()
    assert server.exit_code == -signal.SIGTERM


def test_killed_and_restarted_on_the_same_port(tmp_path):
    with Listener(tmp_path) as server:
        first = server.pid
        server.kill()
        assert not exists(first)
        assert server.exit_code == -signal.SIGKILL
        server.start()
        assert server.pid != first
        assert server.log.count("listening") == 2
        assert server.restart().answers()
        assert server.restart(kill=True).answers()


def test_a_paused_one_runs_but_is_stopped_cleanly(tmp_path):
    with Listener(tmp_path) as server:
        server.pause()
        assert server.running
        server.stop()
        assert server.exit_code == -signal.SIGTERM


@pytest.mark.parametrize("hurt", ["kill", "pause", "stop"])
def test_healing(tmp_path, hurt):
    with Listener(tmp_path) as server:
        pid = server.pid
        server.heal()
        assert server.pid == pid
        getattr(server, hurt)()
        server.heal()
        assert server.running
        assert (server.pid == pid) is (hurt == "pause")
        assert not server.hurt


def test_one_that_ignores_sigterm_is_killed(tmp_path):
    with Listener(tmp_path, f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{LISTENER}") as server:
        server.stop(grace=0.1)
        assert server.exit_code == -signal.SIGKILL


def test_one_that_ends_shows_its_last_words(tmp_path):
    with pytest.raises(NotReadyError, match=r"(?s)listener ended with 1.*No such luck"):
        Listener(tmp_path, "raise SystemExit('No such luck')").start()


def test_one_that_never_answers_shows_its_last_words_and_is_gone(tmp_path):
    server = Listener(tmp_path, "import time; print('Dozing', flush=True); time.sleep(60)", patience=0.5)
    with pytest.raises(NotReadyError, match=r"(?s)waited 0\.5 s for listener to answer.*Dozing"):
        server.start()
    assert not server.running


def test_a_thread_that_started_one_may_end(tmp_path):
    server = Listener(tmp_path)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    with pytest.raises(LateError):
        until(lambda: not server.running, timeout=0.2, what="its end")
    server.stop()


@pytest.mark.parametrize("how", ["killed", "ended"])
def test_none_outlives_the_tests(tmp_path, how):
    stay = "stay" if how == "killed" else "go"
    root = str(Path(__file__).parents[2])
    with Worker.python(STARTS_ONE, str(tmp_path), stay, env={**os.environ, "PYTHONPATH": root}) as worker:
        pid = int(worker.until(len, what="a pid")[0])
        if how == "killed":
            os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        until(lambda: not exists(pid), timeout=5, what="its end")
