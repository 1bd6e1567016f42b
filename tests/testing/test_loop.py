"""Virtual time: exact, deterministic by seed, and never a silent hang."""

from __future__ import annotations

import asyncio
import contextvars
import random
import threading

import pytest

from neuralcore.testing import Deadlock, VirtualLoop, run, virtual


def the_loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


@pytest.mark.parametrize("seconds", [0.1, 0.3, 1.7, 3600.0, 86_400 * 3.0, 1e-6])
def test_sleep_takes_exactly_its_time(seconds: float) -> None:
    async def main() -> int:
        before = the_loop().clock.monotonic_ns()
        await asyncio.sleep(seconds)
        return the_loop().clock.monotonic_ns() - before

    assert run(main()) == round(seconds * 1e9)


def test_both_clocks_move_with_the_loop_and_only_the_wall_clock_jumps() -> None:
    async def main() -> None:
        clock = the_loop().clock
        wall, monotonic, time = clock.time_ns(), clock.monotonic_ns(), the_loop().time()
        await asyncio.sleep(5)
        assert clock.time_ns() - wall == clock.monotonic_ns() - monotonic == 5 * 10**9
        clock.jump(-7200 * 10**9)
        assert clock.time_ns() - wall == (5 - 7200) * 10**9
        assert the_loop().time() - time == 5.0

    run(main())


def test_time_stands_still_while_anything_can_run() -> None:
    async def main() -> None:
        woken = asyncio.get_running_loop().call_later(1e-9, lambda: None)
        before = the_loop().time()
        for _ in range(1000):
            await asyncio.sleep(0)
        assert the_loop().time() == before
        woken.cancel()

    run(main())


@pytest.mark.parametrize("nap", [0.0, 1e-9])
def test_time_that_stands_still_for_ever_ends_the_run(nap: float) -> None:
    async def main() -> None:
        while True:
            await asyncio.sleep(nap)

    with pytest.raises(Deadlock, match=r"time stood still for 50 turns of the loop; pending tasks:(.|\n)*in main"):
        run(main(), turns=50)


def test_time_that_advances_now_and_then_does_not() -> None:
    async def main() -> None:
        for turn in range(400):
            await asyncio.sleep(0 if turn % 40 else 1e-6)

    run(main(), turns=50)


def test_idle_returns_when_nothing_more_can_happen_at_this_time() -> None:
    async def main() -> None:
        seen: list[str] = []

        async def steps() -> None:
            for step in "abc":
                await asyncio.sleep(0)
                seen.append(step)
            await asyncio.sleep(1)
            seen.append("later")

        task = asyncio.create_task(steps())
        before = the_loop().time()
        await the_loop().idle()
        assert (seen, the_loop().time()) == (["a", "b", "c"], before)
        await task

    run(main())


def test_a_deadlock_names_its_tasks_and_the_line_that_waits() -> None:
    async def inner() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        await asyncio.create_task(inner(), name="stuck-one")

    with pytest.raises(Deadlock, match=r"(?s)nothing is scheduled \(seed 3\).*stuck-one.*Event\(\)\.wait\(\)"):
        run(main(), seed=3)


def test_a_poller_does_not_hide_a_deadlock() -> None:
    async def poll() -> None:
        while True:
            await asyncio.sleep(10)

    async def main() -> None:
        task = asyncio.create_task(poll())
        await asyncio.Event().wait()
        task.cancel()

    with pytest.raises(Deadlock, match="past its limit"):
        run(main(), limit=3600)


def order(seed: int | None) -> list[int]:
    async def main() -> list[int]:
        seen: list[int] = []

        async def worker(n: int) -> None:
            for _ in range(3):
                await asyncio.sleep(0.5)
                seen.append(n)

        await asyncio.gather(*(worker(n) for n in range(6)))
        return seen

    return run(main(), seed=seed)


def test_a_run_repeats_and_seeds_differ() -> None:
    assert order(None) == order(None)
    assert order(7) == order(7)
    assert len({tuple(order(seed)) for seed in range(20)}) > 10
    assert all(sorted(order(seed)) == sorted(order(None)) for seed in range(20))


def test_no_callback_overtakes_a_whole_generation() -> None:
    async def main() -> list[str]:
        loop, seen = asyncio.get_running_loop(), []

        def first(n: int) -> None:
            seen.append("first")
            loop.call_soon(seen.append, "second")

        for n in range(5):
            loop.call_soon(first, n)
        await the_loop().idle()
        return seen

    for seed in range(20):
        assert run(main(), seed=seed) == ["first"] * 5 + ["second"] * 5


def test_executors_run_inline_without_a_running_loop_and_in_a_context_of_their_own() -> None:
    var = contextvars.ContextVar("var", default="outside")

    def work(x: int) -> tuple[int, str, int]:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return x + 1, var.get(), threading.get_ident()

    async def main() -> None:
        var.set("inside")
        assert await the_loop().run_in_executor(None, work, 1) == (
            2,
            "outside",
            threading.get_ident(),
        )
        assert (await asyncio.to_thread(work, 2))[:2] == (3, "inside")
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        assert asyncio.get_running_loop() is the_loop()

    run(main())


def test_other_threads_are_refused_by_name() -> None:
    async def main() -> str:
        loop, errors = asyncio.get_running_loop(), []

        def foreign() -> None:
            try:
                loop.call_soon_threadsafe(print)
            except RuntimeError as error:
                errors.append(str(error))

        thread = threading.Thread(target=foreign, name="a-foreigner")
        thread.start()
        thread.join()
        fired = asyncio.Event()
        loop.call_soon_threadsafe(fired.set)
        await fired.wait()
        return errors[0]

    assert "a-foreigner" in run(main())


def test_sockets_are_refused() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="create_connection reaches outside"):
            await asyncio.open_connection("localhost", 1)

    run(main())


def test_what_the_main_task_leaves_behind_is_cancelled_and_generators_are_closed() -> None:
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("task")

    async def numbers():  # type: ignore[no-untyped-def]
        try:
            yield 1
        finally:
            ended.append("generator")

    async def main() -> None:
        task = asyncio.create_task(forever())
        generator = numbers()
        async for _ in generator:
            break
        await asyncio.sleep(0)
        assert not task.done()
        ended.append("main")
        main.keep = task, generator  # type: ignore[attr-defined]

    run(main())
    assert sorted(ended) == ["generator", "main", "task"]


def test_a_failure_prints_the_seed(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        run(main(), seed=41)
    assert "seed=41" in capsys.readouterr().err


ran: list[int | None] = []


@virtual(seeds=4)
async def test_virtual_runs_a_test_once_for_each_seed() -> None:
    ran.append(the_loop().seed)
    await asyncio.sleep(random.Random(the_loop().seed).random())


def test_virtual_ran_every_seed() -> None:
    ran.clear()
    test_virtual_runs_a_test_once_for_each_seed()
    assert ran == [0, 1, 2, 3]


@virtual
async def test_timeouts_groups_and_locks_work(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert tmp_path_factory is not None
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 60)
    lock = asyncio.Lock()
    async with lock:
        other = asyncio.create_task(lock.acquire())
        await the_loop().idle()
        assert not other.done()
    await other
