"""Row 24: an interpreter that ends with an open bus ends; a child forked from one fails clearly and does not hang."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from tests.faults.plan import figures, some, tell, times
from tests.faults.processes import Worker
from tests.faults.sqlite.stage import SqliteStage
from tests.faults.stage import PATHS

PRELUDE = """
import asyncio, os, sys, signal, warnings
warnings.simplefilter("ignore")
from neuralcore import Message
from neuralcore.messaging.bus import MessageBus
from neuralcore_transports.sqlite import SqliteTransport
bus = MessageBus(SqliteTransport.from_url(sys.argv[1]))
async def handle(message: Message):
    await asyncio.sleep(3600)
"""


def script(stage: SqliteStage, text: str) -> Worker:
    source = PRELUDE + textwrap.dedent(text)
    return Worker(sys.executable, "-c", source, stage.url, env={**os.environ, "PYTHONPATH": PATHS})


ENDS = {
    "the loop is left": "loop = asyncio.new_event_loop(); loop.run_until_complete(work())",
    "with an error": "loop = asyncio.new_event_loop(); loop.run_until_complete(work()); raise SystemExit(1)",
    "asyncio.run returns": "asyncio.run(work())",
    "in another thread": "import threading; threading.Thread(target=asyncio.run, args=(work(),)).start()",
}


@pytest.mark.parametrize("how", some(2, sorted(ENDS)))
def test_an_interpreter_ends_with_an_open_bus(stage: SqliteStage, how: str) -> None:
    stage.publish(0, 3)
    text = f"""
        async def work():
            bus.subscribe("work", handle, group="g")
            await bus.start()
            await bus.publish("other", 1)
            await asyncio.sleep(0.2)
        {ENDS[how]}
        print("end", flush=True)
    """
    text = text if how != "with an error" else text.replace('print("end", flush=True)', "")
    stage.journal.fault("interpreter exit")
    with script(stage, text) as worker:
        try:
            code = worker.wait(timeout=15)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it hangs: {worker.lines} {worker.errors}")
        assert code == (1 if how == "with an error" else 0), worker.errors
    stage.consumer(concurrency=2)
    stage.until_settled(timeout=5)
    story = stage.story()
    tell(24, f"interpreter ends with an open bus: {how}", story)
    story.check()


CHILDREN = {
    "in the coroutine that forked": """
        try:
            await bus.publish("work", 1)
        except Exception as error:
            say(error)
    """,
    "on a loop of its own": """
        def own():
            try:
                asyncio.run(asyncio.wait_for(bus.publish("work", 1), 5))
            except Exception as error:
                say(error)
        import threading
        thread = threading.Thread(target=own)
        thread.start()
        thread.join()
    """,
}


@pytest.mark.parametrize("child", CHILDREN)
def test_a_forked_child_fails_clearly_and_its_parent_goes_on(stage: SqliteStage, child: str) -> None:
    forks = times(2, 60)
    text = f"""
def say(error):
    os.write(1, f"child {{type(error).__name__}} {{error}}\\n".encode())
async def main():
    await bus.start()
    for n in range({forks}):
        await bus.publish("work", {{"n": n, "do": ""}}, message_id=f"p-{{n}}")
        pid = os.fork()
        if pid == 0:
            signal.alarm(10)
            {indented(CHILDREN[child])}
            os._exit(7)
        while (done := os.waitpid(pid, os.WNOHANG)) == (0, 0):
            await asyncio.sleep(0.01)
        print("code", os.waitstatus_to_exitcode(done[1]), flush=True)
    await bus.close()
asyncio.run(main())
print("end", flush=True)
"""
    with script(stage, text) as worker:
        worker.expect("end", timeout=12 * forks)
        lines = worker.lines
    codes = [line for line in lines if line.startswith("code")]
    said = {line for line in lines if line.startswith("child")}
    left = stage.left()
    counts = {"attempted": forks, "acked": forks, "delivered": left, "lost": max(0, forks - left)}
    note = f"codes={sorted(set(codes))} said: {sorted(said)}"
    tell(24, f"fork after start, used {child}", figures("fork", forks, **counts, note=note))
    assert codes == ["code 7"] * forks
    assert said
    assert all("fork" in line for line in said)
    assert stage.damage() == ""
    assert left == forks


def indented(text: str) -> str:
    return textwrap.indent(textwrap.dedent(text), " " * 12).strip()


def test_a_child_that_ends_takes_nothing_from_its_parent(stage: SqliteStage) -> None:
    """Neither the database's locks nor the lock that says that its parent lives."""
    stage.query = "lease=30"
    stage.publish(0, 2)
    text = """
        async def main():
            bus.subscribe("work", handle, group="g", concurrency=2)
            await bus.start()
            await asyncio.sleep(0.5)
            for _ in range(3):
                pid = os.fork()
                if pid == 0:
                    os._exit(0)
                os.waitpid(pid, 0)
            print("forked", flush=True)
            await asyncio.sleep(3600)
        asyncio.run(main())
    """
    with script(stage, text) as parent:
        parent.expect("forked")
        stage.consumer()
        stage.until_settled(timeout=2)
        assert stage.outstanding() == 2, "its messages were taken from it"
    stage.until_settled(timeout=10)
    stage.story().check()
