"""``bus.run()``: a program that ends by signals."""

import json
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from neuralcore.messaging.bus import MessageBus
from neuralcore.messaging.errors import BusError

PROGRAM = """
    import asyncio, dataclasses, json, warnings
    warnings.simplefilter("ignore")
    from neuralcore.messaging.bus import MessageBus

    bus = MessageBus()

    @bus.subscribe("tick", blocking=False)
    def tick(number: int):
        if number < 5:
            bus.publish_nowait("tick", number + 1)
        else:
            print("ready", flush=True)

    @bus.subscribe("work")
    async def work(seconds: float):
        print("working", flush=True)
        await asyncio.sleep(seconds)
        print("worked", flush=True)

    @bus.subscribe("begin")
    async def begin(message):
        await bus.publish("tick", 0)
        await bus.publish("work", SECONDS)

    start = bus.start
    async def start_and_begin():
        await start()
        await bus.publish("begin", None)
    bus.start = start_and_begin
    print(json.dumps(dataclasses.asdict(bus.run(timeout=20))), flush=True)
"""


@contextmanager
def running(tmp_path: Path, seconds: str) -> Iterator["subprocess.Popen[str]"]:
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(PROGRAM).replace("SECONDS", seconds))
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            assert {program.stdout.readline().strip(), program.stdout.readline().strip()} == {"ready", "working"}
            yield program
        finally:
            program.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path, "0.2") as program:
        program.send_signal(number)
        out, _ = program.communicate(timeout=30)
        worked, report = out.splitlines()
        assert worked == "worked"
        assert json.loads(report) == {"drained": True, "handled": 1, "released": 0, "abandoned": 0, "interrupted": 0}
        assert program.returncode == 0


def test_the_second_signal_cuts_the_drain_short(tmp_path: Path) -> None:
    with running(tmp_path, "3600") as program:
        program.send_signal(signal.SIGTERM)
        program.send_signal(signal.SIGINT)
        out, _ = program.communicate(timeout=30)
        assert json.loads(out)["abandoned"] == 1
        assert program.returncode == 0


def test_run_belongs_to_the_main_thread() -> None:
    errors: list[BusError] = []

    def elsewhere() -> None:
        try:
            MessageBus().run()
        except BusError as error:
            errors.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])


async def test_run_does_not_start_inside_a_running_loop() -> None:
    bus = MessageBus()
    with pytest.raises(BusError, match="async with bus"):
        bus.run()
    await bus.start()  # nothing has happened to it
    await bus.close()
