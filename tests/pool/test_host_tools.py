"""Host tools: functions of the host that tools call, on every transport and both loops."""

from __future__ import annotations

import contextvars
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from _backends import one_loop_each
from _shares import in_turns
from asking import Asking, AsyncAsking
from pool_kit import BRISK, PATIENT, lines, tools_pool, until

from snakepit import (
    CallTimeoutError,
    ConfigError,
    Pool,
    PoolClosedError,
    SessionNotFoundError,
    Stop,
    ToolError,
    WorkerDiedError,
    open_pool,
    open_pool_sync,
)
from snakepit.testing import CancelPoint, cancel_at_every_checkpoint

pytestmark = one_loop_each

FOREVER_S = 10**6
LARGE = 3 * 2**20

every_transport = pytest.mark.parametrize("transport", ["stdio", "grpc", "memory"])
both_kinds = pytest.mark.parametrize("adapter", [Asking, AsyncAsking])


@asynccontextmanager
async def asking_pool(
    adapter: Any = Asking, transport: str = "stdio", **options: Any
) -> AsyncGenerator[Pool]:
    """A pool with a few host tools."""
    async with tools_pool(adapter, transport=transport, **options) as pool:

        @pool.host_tool
        def double(value: Any) -> Any:
            return value * 2

        @pool.host_tool
        async def number(number: int = 7) -> int:
            await anyio.lowlevel.checkpoint()
            return number

        @pool.host_tool
        def nothing() -> None:
            """It gives nothing back."""

        yield pool


class Sleeping:
    """A host tool that never returns, and tells how it ended."""

    def __init__(self, farewell_s: float = 0.0) -> None:
        self.entered, self.was, self.farewell_s = anyio.Event(), "", farewell_s

    async def __call__(self) -> None:
        self.entered.set()
        try:
            await anyio.sleep(FOREVER_S)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(self.farewell_s)
            self.was = "ended"


# -- what comes back -----------------------------------------------------------------------------


@every_transport
@both_kinds
async def test_a_tool_calls_functions_of_its_host(adapter: type, transport: str) -> None:
    async with asking_pool(adapter, transport) as pool:
        assert (
            await pool.execute("ask", {"name": "double", "params": {"value": (1, 2)}}) == (1, 2) * 2
        )
        assert await pool.execute("ask", {"name": "number"}) == 7
        assert await pool.execute("ask", {"name": "nothing"}) is None
        params = {"name": "number", "params": {"number": 9}}
        assert await pool.execute("ask_proxy", params) == 9
        async with pool.stream("questions", {"name": "number", "count": 3}) as answers:
            assert [answer async for answer in answers] == [0, 1, 2]
        calls = [{"name": "number", "params": {"number": n}} for n in range(20)]
        async with pool.map("ask", calls) as results:
            assert [result async for result in results] == list(range(20))
        assert (pool.stats().errors, pool.stats().restarts) == (0, 0)


@every_transport
@both_kinds
async def test_large_values_travel_both_ways(adapter: type, transport: str) -> None:
    value = bytes(range(256)) * (LARGE // 256)
    async with asking_pool(adapter, transport) as pool:
        params = {"name": "double", "params": {"value": value}}
        assert await pool.execute("ask", params) == value * 2
        params = {"name": "double", "params": {"value": "€" * LARGE}}
        assert await pool.execute("ask", params) == "€" * 2 * LARGE


@every_transport
async def test_one_async_tool_has_fifty_host_calls_at_once(transport: str) -> None:
    """They run side by side: each waits until the last one has come."""
    entered = 0
    all_here = anyio.Event()

    async def meet(number: int) -> int:
        nonlocal entered
        entered += 1
        if entered == 50:
            all_here.set()
        await all_here.wait()
        return number

    async with asking_pool(AsyncAsking, transport) as pool:
        pool.add_host_tool(meet)
        answers = await pool.execute("ask_at_once", {"name": "meet", "times": 50})
        assert answers == list(range(50))


@every_transport
async def test_threads_of_a_tool_may_ask_and_their_large_values_are_kept_apart(
    transport: str,
) -> None:
    async with asking_pool(Asking, transport) as pool:
        assert await pool.execute("ask_in_thread", {"name": "number"}) == [7]
        pool.add_host_tool(lambda value: value, name="same")
        params = {"name": "same", "count": 8, "size": LARGE}
        assert await pool.execute("ask_in_threads", params) == list(range(8))


@every_transport
async def test_a_hundred_host_calls_in_a_row(transport: str) -> None:
    async with asking_pool(Asking, transport) as pool:
        params = {"name": "number", "times": 100}
        assert await pool.execute("ask_often", params) == list(range(100))


async def test_a_function_of_run_sync_may_ask_too() -> None:
    async with asking_pool() as pool:
        assert await pool.run_sync(_ask_for_a_number) == 7


async def test_so_may_that_of_a_future() -> None:
    """It has no caller's task: the pool's own serves it."""
    async with asking_pool() as pool:
        future = pool.as_executor().submit(_ask_for_a_number)
        await until(future.done)
        assert future.result() == 7


def _ask_for_a_number() -> Any:
    from snakepit import context

    return context().call_host("number")


# -- where it runs -------------------------------------------------------------------------------


@every_transport
async def test_it_runs_with_its_caller_s_context_variables_and_deadline(transport: str) -> None:
    variable = contextvars.ContextVar("variable", default="nobody's")
    seen: list[Any] = []

    async def look(**_: Any) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append(variable.get())
        seen.append(anyio.current_effective_deadline())

    async with asking_pool(transport=transport) as pool:
        pool.add_host_tool(look)
        variable.set("the caller's")
        with anyio.fail_after(10) as scope:
            await pool.execute("ask", {"name": "look"})
            async with pool.stream("questions", {"name": "look", "count": 1}) as answers:
                assert [answer async for answer in answers] == [None]
            async with pool.map("ask", [{"name": "look"}]) as results:
                assert [result async for result in results] == [None]
        assert seen == ["the caller's", scope.deadline] * 3
        seen.clear()
        now = anyio.current_time()
        await pool.execute("ask", {"name": "look"}, timeout=5)
        assert now <= seen[1] - 5 <= anyio.current_time()


@every_transport
async def test_progress_and_host_calls_go_together(transport: str) -> None:
    """Also where the one waits for the other."""
    asked, shown = anyio.Event(), []

    async def ask() -> str:
        asked.set()
        await anyio.lowlevel.checkpoint()
        return "asked"

    async def show(done: float, _total: float | None, message: str | None) -> None:
        shown.append((done, message))
        await asked.wait()

    async with asking_pool(transport=transport) as pool:
        pool.add_host_tool(ask)
        assert await pool.execute("report_and_ask", {"name": "ask"}, on_progress=show) == "asked"
    assert shown == [(1, "before"), (2, "after")]


# -- what is offered -----------------------------------------------------------------------------


async def test_a_tool_of_a_session_is_for_its_calls_and_wins_and_ends_with_it() -> None:
    async with asking_pool() as pool:
        ask = {"name": "who"}
        async with pool.session("one") as session, pool.session("two") as other:

            @session.host_tool
            def who() -> str:
                return "session"

            pool.add_host_tool(lambda: "other", name="who", session=other)
            pool.add_host_tool(lambda: "pool", name="who")
            assert await session.execute("ask", ask) == "session"
            assert await other.execute("ask", ask) == "other"
            assert await pool.execute("ask", ask) == "pool"
        async with pool.session("one") as session:
            assert await session.execute("ask", ask) == "pool"
        with pytest.raises(SessionNotFoundError):
            pool.add_host_tool(print, session=session)
        with pytest.raises(SessionNotFoundError):
            pool.add_host_tool(print, session="nobody")
        await pool.execute("echo", session="on demand")
        pool.add_host_tool(lambda: "demanded", name="who", session="on demand")
        assert await pool.execute("ask", ask, session="on demand") == "demanded"


async def test_name_and_description_come_from_the_function_or_as_they_are_told() -> None:
    async with asking_pool() as pool:

        def lookup(key: str, limit: int = 3) -> list[str]:
            """Look it up
            at once.

            And more.
            """
            return [key] * limit

        spec = pool.add_host_tool(lookup)
        assert (spec.name, spec.description) == ("lookup", "Look it up at once.")
        assert spec.parameters["required"] == ["key"]
        spec = pool.add_host_tool(lookup, name="find", description="Otherwise")
        assert (spec.name, spec.description) == ("find", "Otherwise")

        @pool.host_tool(name="decorated")
        def any_name() -> str:
            return "decorated"

        assert any_name() == "decorated"
        assert await pool.execute("ask", {"name": "decorated"}) == "decorated"


async def test_what_cannot_be_offered_is_refused() -> None:
    def positional(value: int, /) -> int:
        return value

    def generator() -> Any:
        yield 1

    async with asking_pool() as pool:
        with pytest.raises(ConfigError, match="already"):
            pool.add_host_tool(lambda: 1, name="double")
        for name in ("", 5, "x" * 1001, "\ud800"):
            with pytest.raises(ConfigError):
                pool.add_host_tool(lambda: 1, name=name)
        for wrong in (5, generator, positional):
            with pytest.raises(TypeError):
                pool.add_host_tool(wrong, name="wrong")


async def test_another_thread_and_a_closed_pool_can_offer_nothing() -> None:
    """Refused as calls are, with the same words."""
    async with tools_pool(Asking, transport="memory") as pool:
        with pytest.raises(RuntimeError, match="open_pool_sync"):
            await anyio.to_thread.run_sync(pool.add_host_tool, abs)
    with pytest.raises(PoolClosedError):
        pool.add_host_tool(abs)


# -- what goes wrong -----------------------------------------------------------------------------


@every_transport
async def test_nothing_else_can_be_called(transport: str) -> None:
    """The names that come near are told."""
    async with asking_pool(transport=transport) as pool:
        for name in ("eval", "execute", "doubl", ""):
            seen = await pool.execute("ask_and_catch", {"name": name})
            assert seen["class"] == "ToolNotFoundError"
            assert f"the host offers no tool {name!r}" in seen["text"]
            assert ("did you mean 'double'?" in seen["text"]) is (name == "doubl")
            with pytest.raises(LookupError) as caught:
                await pool.execute("ask", {"name": name})
            assert isinstance(caught.value, ToolError)
            assert caught.value.type == "snakepit.errors.ToolNotFoundError"


@every_transport
@pytest.mark.parametrize("params", [{}, {"wrong": 1}, {"value": 1, "more": 2}])
async def test_wrong_params_are_found_before_it_runs(
    params: dict[str, Any], transport: str
) -> None:
    async with asking_pool(transport=transport) as pool:
        seen = await pool.execute("ask_and_catch", {"name": "double", "params": params})
        assert seen["class"] == "InvalidParamsError"
        assert seen["text"].startswith("tool 'double': ")


@every_transport
@both_kinds
async def test_its_error_goes_through_the_tool_to_the_caller_with_its_type(
    adapter: type, transport: str
) -> None:
    class OwnError(FileNotFoundError):
        pass

    async def fail() -> None:
        await anyio.lowlevel.checkpoint()
        raise OwnError(2, "gone", "some/file")

    async with asking_pool(adapter, transport) as pool:
        pool.add_host_tool(fail)
        with pytest.raises(FileNotFoundError) as caught:
            await pool.execute("ask", {"name": "fail"})
        error = caught.value
        assert isinstance(error, ToolError)
        assert error.type == f"{__name__}.{OwnError.__qualname__}"
        assert (error.errno, error.filename) == (2, "some/file")
        assert "Traceback in the host" in "".join(error.__notes__)
        assert await pool.execute("ask", {"name": "number"}) == 7


@every_transport
async def test_the_tool_sees_a_host_tool_error_that_is_the_builtin_type_too(transport: str) -> None:
    def fail() -> None:
        raise KeyError("mine")

    async with asking_pool(transport=transport) as pool:
        pool.add_host_tool(fail)
        seen = await pool.execute("ask_and_catch", {"name": "fail"})
    assert {"HostToolError", "KeyError", "SnakepitError"} < set(seen["bases"])
    assert "ToolError" not in seen["bases"]
    assert seen["type"] == "builtins.KeyError"
    assert "Traceback in the host" in seen["notes"]


@every_transport
async def test_a_value_that_cannot_travel_says_so(transport: str) -> None:
    async with asking_pool(transport=transport) as pool:
        pool.add_host_tool(lambda: {"deep": [object()]}, name="unspeakable")
        seen = await pool.execute("ask_and_catch", {"name": "unspeakable"})
        assert seen["class"] == "SerializationError"
        assert "deep" in seen["text"]
        assert await pool.execute("ask", {"name": "number"}) == 7


@every_transport
async def test_call_host_in_an_async_tool_says_what_to_do(transport: str) -> None:
    async with asking_pool(AsyncAsking, transport) as pool:
        with pytest.raises(RuntimeError, match="acall_host"):
            await pool.execute("ask_wrongly", {"name": "number"})


@every_transport
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
async def test_what_is_no_exception_ends_the_call_and_is_its_caller_s(
    error: BaseException, transport: str
) -> None:
    def stop() -> None:
        raise error

    async with asking_pool(transport=transport) as pool:
        pool.add_host_tool(stop)
        with pytest.raises(type(error)) as caught:
            await pool.execute("ask", {"name": "stop"})
        assert caught.value is error
        assert await pool.execute("ask", {"name": "number"}) == 7
        assert pool.stats().restarts == 0


# -- giving up -----------------------------------------------------------------------------------


@every_transport
async def test_a_cancelled_caller_s_host_tool_has_ended_when_it_returns_and_its_worker_is_kept(
    transport: str, tmp_path: Path
) -> None:
    """The tool is told where it waits, and calls its host no more."""
    log, sleeping = tmp_path / "log", Sleeping(farewell_s=0.05)
    async with asking_pool(transport=transport) as pool, anyio.create_task_group() as tasks:
        pool.add_host_tool(sleeping, name="sleep")
        pid = await pool.execute("pid")

        async def call() -> None:
            try:
                await pool.execute("ask_and_log", {"name": "sleep", "log": str(log)})
            finally:
                assert sleeping.was == "ended"

        tasks.start_soon(call)
        await sleeping.entered.wait()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await until(lambda: lines(log) == ["cancelled", "cancelled again"])
            assert await pool.execute("pid") == pid
            assert pool.stats().restarts == 0


@every_transport
@both_kinds
async def test_when_the_time_of_the_call_is_up_its_host_tool_is_cancelled(
    adapter: type, transport: str
) -> None:
    sleeping = Sleeping()
    async with asking_pool(adapter, transport) as pool:
        pool.add_host_tool(sleeping, name="sleep")
        with pytest.raises(CallTimeoutError):
            await pool.execute("ask", {"name": "sleep"}, timeout=0.5)
        assert sleeping.was == "ended"
        assert await pool.execute("echo", {"value": 5}) == 5
        assert pool.stats().restarts == 0


@every_transport
async def test_a_host_call_that_its_tool_gives_up_is_cancelled_and_the_tool_goes_on(
    transport: str,
) -> None:
    sleeping = Sleeping()
    async with asking_pool(AsyncAsking, transport) as pool:
        pool.add_host_tool(sleeping, name="sleep")
        params = {"name": "sleep", "seconds": 0.05}
        assert await pool.execute("ask_in_time", params) == "gave it up"
        assert sleeping.was == "ended"
        assert await pool.execute("ask", {"name": "number"}) == 7


@every_transport
async def test_leaving_a_stream_ends_its_host_tool(transport: str) -> None:
    sleeping = Sleeping(farewell_s=0.05)
    async with asking_pool(transport=transport) as pool:
        pool.add_host_tool(lambda number: sleeping(), name="sleep")
        async with pool.stream("questions", {"name": "sleep", "count": 1}) as answers:
            with anyio.move_on_after(0.05):
                await anext(answers)
            await sleeping.entered.wait()
        assert sleeping.was == "ended"
        assert pool.stats().restarts == 0


async def test_a_worker_that_dies_takes_its_host_calls_along() -> None:
    sleeping = Sleeping(farewell_s=0.05)
    async with asking_pool() as pool:
        pool.add_host_tool(sleeping, name="sleep")

        async def kill() -> None:
            await sleeping.entered.wait()
            os.kill(pool.workers()[0].pid or 0, signal.SIGKILL)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kill)
            with pytest.raises(WorkerDiedError):
                await pool.execute("ask", {"name": "sleep"})
        assert sleeping.was == "ended"
        assert await pool.execute("ask", {"name": "number"}) == 7


async def test_a_call_that_is_sent_again_asks_again(tmp_path: Path) -> None:
    """The host tool of the first attempt is cancelled."""
    asked: list[str] = []

    async def once_for_ever() -> str:
        asked.append("asked")
        if len(asked) == 1:
            try:
                await anyio.sleep(FOREVER_S)
            finally:
                asked.append("cancelled")
        return "answer"

    async with asking_pool() as pool:
        pool.add_host_tool(once_for_ever)
        params = {"name": "once_for_ever", "log": str(tmp_path / "log")}
        assert await pool.execute("ask_and_die_once", params) == "answer"
    assert sorted(asked) == ["asked", "asked", "cancelled"]


@every_transport
async def test_a_host_tool_that_never_ends_does_not_hold_up_the_end_of_its_pool(
    transport: str,
) -> None:
    sleeping = Sleeping()
    async with (
        anyio.create_task_group() as tasks,
        open_pool(Asking, size=1, transport=transport, stop=BRISK) as pool,
    ):
        pool.add_host_tool(sleeping, name="sleep")

        async def call() -> None:
            with pytest.raises(PoolClosedError):
                await pool.execute("ask", {"name": "sleep"})
            assert sleeping.was == "ended"

        tasks.start_soon(call)
        await sleeping.entered.wait()
    assert sleeping.was == "ended"


async def test_a_future_s_host_tool_ends_with_its_pool() -> None:
    sleeping = Sleeping()
    stop = Stop(cancel_grace=5, term_grace=1, drain_timeout=1)
    async with open_pool(Asking, size=1, stop=stop) as pool:
        pool.add_host_tool(sleeping, name="number")
        future = pool.as_executor().submit(_ask_for_a_number)
        await sleeping.entered.wait()
    assert sleeping.was == "ended"
    assert isinstance(future.exception(0), PoolClosedError)


# -- without async -------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_pools_for_blocking_code_have_host_tools_as_well(backend: str) -> None:
    with open_pool_sync(Asking, size=1, backend=backend) as pool:

        @pool.host_tool
        def triple(value: int) -> int:
            return 3 * value

        @pool.host_tool
        async def soon() -> str:
            await anyio.lowlevel.checkpoint()
            return "soon"

        assert pool.execute("ask", {"name": "triple", "params": {"value": 5}}) == 15
        assert pool.execute("ask", {"name": "soon"}) == "soon"
        with pool.session() as session:
            session.host_tool(lambda: "here", name="soon")
            assert session.execute("ask", {"name": "soon"}) == "here"


@pytest.mark.unmeasured
@pytest.mark.parametrize(("how", "seed"), in_turns([0, 1, 2], ["execute", "stream", "map"]))
def test_cancelled_at_each_of_its_checkpoints_no_host_tool_is_left(how: str, seed: int) -> None:
    """Nor a call that one has made; and the workers are kept."""

    async def main(point: CancelPoint) -> None:
        running = 0
        async with open_pool(AsyncAsking, size=2, transport="memory", stop=PATIENT) as pool:

            @pool.host_tool
            async def look(number: int = 0) -> Any:
                nonlocal running
                running += 1
                try:
                    await anyio.sleep(0.1)
                    return await pool.execute("echo", {"value": number})
                finally:
                    running -= 1

            with point:
                if how == "execute":
                    params = {"name": "look", "times": 3}
                    assert await pool.execute("ask_at_once", params) == [0, 1, 2]
                elif how == "stream":
                    async with pool.stream("questions", {"name": "look", "count": 2}) as answers:
                        assert [answer async for answer in answers] == [0, 1]
                else:
                    async with pool.map("ask", [{"name": "look"}] * 2, limit=1) as results:
                        assert [result async for result in results] == [0, 0]
            stats = pool.stats()
            assert (running, stats.busy, stats.queued, stats.restarts) == (0, 0, 0, 0)
            assert await pool.execute("echo", {"value": 5}) == 5

    assert cancel_at_every_checkpoint(main, seed=seed) > 30
