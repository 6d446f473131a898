"""Waiting for coroutines outside of the pool, and inside a carrier without Celery."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import threading
import weakref

import pytest

from penstock.workers.pool.loop import (
    Interruption,
    at_close,
    carry,
    close_process_loop,
    process_loop,
    running_in_pool,
    wait,
)

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def give(value: object, seconds: float = 0.0) -> object:
    await asyncio.sleep(seconds)
    return value


async def thread_name() -> str:
    return threading.current_thread().name


def test_a_direct_call_waits_on_the_processs_loop_whoever_calls() -> None:
    assert wait(give(1)) == 1
    names = []
    thread = threading.Thread(target=lambda: names.append(wait(thread_name())))
    thread.start()
    thread.join()
    assert names == [wait(thread_name())] == ["penstock-loop"]
    assert not running_in_pool()


def test_an_exception_comes_out_as_it_was_raised() -> None:
    async def fail() -> None:
        raise KeyError("k")

    with pytest.raises(KeyError, match="k"):
        wait(fail())


def test_waiting_on_the_loop_itself_is_refused_and_leaves_no_coroutine() -> None:
    async def nested() -> None:
        wait(give(1))

    with pytest.raises(RuntimeError, match="use await"):
        wait(nested())


def test_what_another_cancels_is_an_error_and_not_a_cancellation() -> None:
    async def cancelled() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    with pytest.raises(RuntimeError, match="cancelled by something else"):
        wait(cancelled())


def test_clean_ups_are_awaited_before_the_loop_closes_and_the_next_wait_has_another() -> None:
    done = []

    async def clean(name: str) -> None:
        await asyncio.sleep(0)
        done.append(name)

    async def open_two() -> None:
        at_close(lambda: clean("first"))
        at_close(lambda: clean("second"))

    wait(open_two())
    before = process_loop()
    close_process_loop()
    assert done == ["second", "first"]
    assert not before.thread.is_alive()
    assert wait(give(2)) == 2
    assert process_loop() is not before


def test_a_forked_child_has_a_loop_of_its_own() -> None:
    wait(give(1))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        os.write(writer, b"ok" if wait(give(3)) == 3 else b"no")
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        assert answer.read() == b"ok"
    os.waitpid(child, 0)


def test_many_synchronous_functions_wait_at_once_on_one_loop() -> None:
    all_wait = asyncio.Barrier(50)

    def body(number: int) -> tuple[int, str, bool]:
        variable.set(f"set by {number}")

        async def read() -> str:
            await all_wait.wait()  # nobody goes on before all fifty wait
            return variable.get()

        seen = wait(read())
        return number, seen, running_in_pool()

    async def run() -> list[tuple[int, str, bool]]:
        return list(await asyncio.gather(*(carry(lambda n=n: body(n), Interruption()) for n in range(50))))

    assert asyncio.run(run()) == [(n, f"set by {n}", True) for n in range(50)]


def test_an_interruption_is_raised_at_the_await_and_the_task_goes_on() -> None:
    async def nap() -> str:
        try:
            await asyncio.sleep(60)
        except TimeoutError:
            await asyncio.sleep(0.01)
            return "woken"
        return "slept"

    async def run() -> list[str]:
        interruption = Interruption()
        task = asyncio.create_task(carry(lambda: [wait(nap()), wait(nap_shortly())], interruption))
        await asyncio.sleep(0.05)
        interruption.interrupt(TimeoutError())
        return await task

    async def nap_shortly() -> str:
        async with asyncio.timeout(5):  # would be confused by a cancellation that nobody took back
            await asyncio.sleep(0.01)
        return "slept"

    assert asyncio.run(run()) == ["woken", "slept"]


def test_a_killed_function_cannot_wait_again_even_if_its_coroutine_swallows_the_cancellation() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "I go on"
        return "slept"

    seen: list[str] = []

    def body() -> None:
        for _ in range(2):
            try:
                seen.append(wait(stubborn()))
            except asyncio.CancelledError:
                seen.append("cancelled")

    async def run() -> None:
        interruption = Interruption()
        task = asyncio.create_task(carry(body, interruption))
        await asyncio.sleep(0.05)
        interruption.kill()
        await task

    asyncio.run(run())
    assert seen == ["cancelled", "cancelled"]


def test_nothing_keeps_a_function_that_has_ended() -> None:
    class Big:
        pass

    async def run() -> weakref.ref[Big]:
        big = Big()
        await carry(lambda: wait(give(big)), Interruption())
        return weakref.ref(big)

    reference = asyncio.run(run())
    gc.collect()
    assert reference() is None
