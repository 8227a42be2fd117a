"""pool.map: lazy, bounded, in order or as they come; and over when its block is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from _backends import asyncio_only, one_loop_each
from mapped import Mapped
from pool_kit import PATIENCE_S, lines, pids, tools_pool, until

from snakepit import (
    CallTimeoutError,
    ConfigError,
    InvalidParamsError,
    Pool,
    PoolClosedError,
    PoolSaturatedError,
    Queue,
    ToolError,
    ToolNotFoundError,
    WorkerDiedError,
    open_pool,
)

pytestmark = one_loop_each

SETTLE_S = 0.05  # for what could go on to do so


class Source:
    """An input that counts what was taken from it, and is taken from by one task at a time."""

    def __init__(self, stop: int = 10**9, **params: Any) -> None:
        self.stop, self.params = stop, params
        self.taken = 0
        self.closed = self.cleaned = False
        self.tasks: set[int] = set()
        self.guard = anyio.ResourceGuard("iterating")
        self.pause: Any = None  # awaited before each item

    def next(self) -> dict[str, Any]:
        self.taken += 1
        self.tasks.add(anyio.get_current_task().id)
        return {"number": self.taken - 1} | self.params

    def plain(self) -> Iterator[dict[str, Any]]:
        try:
            while self.taken < self.stop:
                yield self.next()
        finally:
            self.closed = self.cleaned = True

    async def waiting(self) -> AsyncIterator[dict[str, Any]]:
        try:
            while self.taken < self.stop:
                with self.guard:
                    await anyio.lowlevel.checkpoint()
                    if self.pause is not None:
                        await self.pause()
                yield self.next()
        finally:
            self.closed = True
            await anyio.sleep(0.01)
            self.cleaned = True


def started(folder: Path) -> int:
    return len(list(folder.glob("started*")))


async def release_all(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / f"release{number}").touch()


# What comes out


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("kind", ["list", "plain", "waiting"])
@pytest.mark.parametrize("limit", [None, 1, 7])
async def test_each_item_gets_its_result(kind: str, ordered: bool, limit: int | None) -> None:
    """All 200 of them, in order or in any; then the iteration ends, for good."""
    source = Source(200)
    params: Any = list(source.plain()) if kind == "list" else getattr(source, kind)()
    async with tools_pool(Mapped, size=2) as pool:
        async with pool.map("double", params, ordered=ordered, limit=limit) as results:
            got = [result async for result in results]
            with pytest.raises(StopAsyncIteration):
                await anext(results)
        assert (got if ordered else sorted(got)) == [2 * number for number in range(200)]
        assert source.cleaned
        assert pool.stats().requests == 200
        async with pool.map("double", []) as results:
            assert [result async for result in results] == []


async def test_unordered_results_come_when_they_are_there_and_ordered_ones_in_turn(
    tmp_path: Path,
) -> None:
    """The first of three is the last to end."""
    async with tools_pool(Mapped, size=3) as pool:
        for ordered in (False, True):
            folder = tmp_path / str(ordered)
            folder.mkdir()
            items = Source(3, folder=str(folder)).plain()
            async with pool.map("wait", items, ordered=ordered) as results:
                await until(lambda folder=folder: started(folder) == 3)
                (folder / "release2").touch()
                if ordered:
                    with anyio.move_on_after(SETTLE_S):
                        pytest.fail(f"{await anext(results)} came before its turn")
                else:
                    assert await anext(results) == 2
                await release_all(folder, 3)
                rest = [result async for result in results]
            assert (rest if ordered else sorted(rest)) == ([0, 1, 2] if ordered else [0, 1])


async def test_maps_side_by_side_and_one_behind_another() -> None:
    """The results of one are the input of the next; a stream is one, too."""
    async with (
        tools_pool(Mapped, size=2) as pool,
        pool.stream("count", {"stop": 30}) as numbers,
        pool.map("double", ({"number": n} async for n in numbers)) as doubled,
        pool.map("double", ({"number": n} async for n in doubled), ordered=False) as twice,
    ):
        assert sorted([n async for n in twice]) == [4 * n for n in range(30)]


# How much is under way


@pytest.mark.parametrize("kind", ["plain", "waiting"])
@pytest.mark.parametrize(("limit", "bound"), [(1, 1), (5, 5), (None, 20)])
async def test_never_more_than_the_limit_is_taken_and_not_read(
    kind: str, limit: int | None, bound: int
) -> None:
    """From an endless input, whether the reader waits, reads, or does something else."""
    source = Source()
    async with tools_pool(Mapped, size=2) as pool:
        async with pool.map("double", getattr(source, kind)(), limit=limit) as results:
            for read in range(100):
                assert source.taken <= read + bound
                if read in (0, 50):
                    await until(lambda read=read: source.taken == read + bound)
                    await until(lambda: not pool.stats().busy)
                    await anyio.sleep(SETTLE_S)
                    assert source.taken == read + bound
                assert await anext(results) == 2 * read
        assert source.closed
        assert len(source.tasks) == 1


async def test_a_slow_first_call_holds_up_no_worker_until_the_limit(tmp_path: Path) -> None:
    """Ordered: the other worker goes on with what comes after it."""
    source = Source(folder=str(tmp_path))
    for number in range(1, 30):
        (tmp_path / f"release{number}").touch()
    async with (
        tools_pool(Mapped, size=2) as pool,
        pool.map("wait", source.plain(), limit=8) as results,
    ):
        await until(lambda: started(tmp_path) == 8)
        await until(lambda: pool.stats().busy == 1)
        assert source.taken == 8
        (tmp_path / "release0").touch()
        assert await anext(results) == 0


async def test_calls_are_not_made_before_a_worker_is_free_so_their_time_is_their_own() -> None:
    """Eight calls of 0.2 s one after the other, each in time for its timeout of 1.5 s."""
    async with tools_pool(Mapped) as pool:
        for _ in range(3):
            await pool.execute("pid")  # short calls before do not matter
        items = [{"number": number, "seconds": 0.2} for number in range(8)]
        async with pool.map("nap", items, timeout=1.5) as results:
            async for _ in results:
                assert pool.stats().queued == 0


async def test_short_calls_are_sent_ahead() -> None:
    async with tools_pool(Mapped, size=2) as pool:
        ahead = 0
        async with pool.map("double", Source(3000).plain()) as results:
            async for _ in results:
                ahead = max(ahead, pool._core.scheduler.prefetched)
        assert ahead > 0


async def test_a_bounded_queue_slows_it_down_and_fails_nothing() -> None:
    async with tools_pool(Mapped, size=2, queue=Queue(max_size=0)) as pool:
        async with pool.map("double", Source(300).plain(), limit=50) as results:
            assert [n async for n in results] == [2 * n for n in range(300)]
        assert pool.stats().saturated == 0


async def test_a_queue_that_others_have_filled_refuses_it(tmp_path: Path) -> None:
    """With nothing of its own under way there is nothing that it could wait for."""
    async with tools_pool(Mapped, queue=Queue(max_size=0)) as pool, anyio.create_task_group() as tg:
        tg.start_soon(pool.execute, "wait", {"number": 0, "folder": str(tmp_path)})
        await until(lambda: started(tmp_path))
        with pytest.raises(PoolSaturatedError):
            async with pool.map("double", [{"number": 1}]) as results:
                await anext(results)
        await release_all(tmp_path, 1)


# Errors


@pytest.mark.parametrize("ordered", [True, False])
async def test_the_first_error_stops_the_others_and_then_is_raised_as_itself(
    ordered: bool, tmp_path: Path
) -> None:
    """Their tools have stopped; their workers were kept; nothing more was begun."""
    source = Source(folder=str(tmp_path))
    async with tools_pool(Mapped, size=3) as pool:
        before = pids(pool)
        # With a limit nobody is inside of the input by then, where the end would meet it as a cancel.
        opened = pool.map("fail_when", source.waiting(), ordered=ordered, limit=3)
        async with opened as results:
            with pytest.raises(FileNotFoundError) as caught:
                await anext(results)
            assert type(caught.value).__mro__[1] is ToolError
            assert caught.value.filename == "some/file"
            assert sorted(lines(tmp_path / "stopped")) == ["1", "2"]
            assert not pool.stats().busy
            with pytest.raises(FileNotFoundError):
                await anext(results)
        assert source.cleaned
        assert started(tmp_path) == 2
        assert pids(pool) == before


@pytest.mark.parametrize("input_is", ["at its end", "waited for"])
async def test_an_error_stops_the_others_while_the_body_does_something_else(
    input_is: str, tmp_path: Path
) -> None:
    """And is never raised into the body."""
    source = Source(3 if input_is == "at its end" else 10**9, folder=str(tmp_path))

    async def pause() -> None:
        if source.taken == 3:
            await anyio.sleep(PATIENCE_S)

    source.pause = pause
    async with tools_pool(Mapped, size=3) as pool:
        items: Any = list(source.plain()) if input_is == "at its end" else source.waiting()
        async with pool.map("fail_when", items):
            await until(lambda: sorted(lines(tmp_path / "stopped")) == ["1", "2"])
            await until(lambda: source.closed)
        assert not pool.stats().busy


async def test_on_error_return_gives_each_exception_in_its_place() -> None:
    """What the tool raises, what cannot be sent or called, what cannot come back, what is late."""
    items: list[Any] = [
        {"number": 1},
        {"number": -1},
        {"number": "two"},
        {"other": 3},
        [("number", 4)],
        {"number": object()},
        {"number": 6},
    ]
    kinds = [int, ValueError, *[InvalidParamsError] * 3, TypeError, int]
    async with tools_pool(Mapped, size=2) as pool:
        for ordered in (True, False):
            async with pool.map("double", items, on_error="return", ordered=ordered) as results:
                got = [result async for result in results]
            if ordered:
                assert all(isinstance(*pair) for pair in zip(got, kinds, strict=True))
                assert (got[0], got[-1]) == (2, 12)
            assert sum(isinstance(result, Exception) for result in got) == 5
            assert len(got) == 7
        async with pool.map("unreadable", [{}], on_error="return") as results:
            assert isinstance(await anext(results), TypeError)
        naps = [{"number": 0, "seconds": s} for s in (0, 30, 0)]
        async with pool.map("nap", naps, on_error="return", timeout=1.0) as results:
            got = [result async for result in results]
        assert got[::2] == [0, 0]
        assert isinstance(got[1], CallTimeoutError)


@pytest.mark.parametrize("item", [{"number": "two"}, "params", {"number": object()}])
async def test_an_item_that_is_no_call_ends_it_as_a_failed_call_does(item: Any) -> None:
    async with tools_pool(Mapped) as pool:
        with pytest.raises(TypeError):
            async with pool.map("double", [item, {"number": 1}]) as results:
                await anext(results)


async def test_a_timeout_is_that_of_one_call(tmp_path: Path) -> None:
    async with tools_pool(Mapped, size=2) as pool:
        items = Source(2, folder=str(tmp_path)).plain()
        with pytest.raises(CallTimeoutError) as caught:
            async with pool.map("wait", items, timeout=1.0) as results:
                await anext(results)
        assert (caught.value.tool, caught.value.timeout) == ("wait", 1.0)
        assert sorted(lines(tmp_path / "stopped")) == ["0", "1"]


async def test_a_worker_that_dies_fails_its_call_unless_it_is_idempotent(tmp_path: Path) -> None:
    async with tools_pool(Mapped) as pool:
        log = {"log": str(tmp_path / "one")}
        with pytest.raises(WorkerDiedError):
            async with pool.map("die_once", [log]) as results:
                await anext(results)
        log = {"log": str(tmp_path / "other")}
        async with pool.bind(idempotent=True).map("die_once", [log]) as results:
            assert await anext(results) == pids(pool)[0]
        assert len(lines(tmp_path / "other")) == 2


@pytest.mark.parametrize("kind", ["plain", "waiting"])
@pytest.mark.parametrize("on_error", ["cancel", "return"])
async def test_what_the_input_raises_is_raised_at_the_reader(
    kind: str, on_error: Any, tmp_path: Path
) -> None:
    """ "cancel": at once, the calls before it stopped. "return": after their results."""
    source = Source(2, folder=str(tmp_path))
    error = LookupError("no more")

    async def waiting() -> AsyncIterator[Any]:
        async for item in source.waiting():
            yield item
        await until(lambda: started(tmp_path) == 2)
        raise error

    def plain() -> Iterator[Any]:
        yield from source.plain()
        raise error

    async with tools_pool(Mapped, size=2) as pool:
        items: Any = plain() if kind == "plain" else waiting()
        async with pool.map("wait", items, on_error=on_error) as results:
            if on_error == "return":
                await release_all(tmp_path, 2)
                assert [await anext(results), await anext(results)] == [0, 1]
            for _ in range(2):
                with pytest.raises(LookupError) as caught:
                    await anext(results)
                assert caught.value is error
            assert not pool.stats().busy
            # One may be stopped before it can say that it runs.
            assert len(lines(tmp_path / "stopped")) >= started(tmp_path)


async def test_the_end_of_the_pool_ends_it_whatever_it_does_with_errors(tmp_path: Path) -> None:
    """An endless input does not become endless errors."""
    errors: list[BaseException] = []
    source = Source(folder=str(tmp_path))

    async def read(pool: Pool) -> None:
        try:
            async with pool.map("wait", source.plain(), on_error="return") as results:
                await anext(results)
        except PoolClosedError as error:
            errors.append(error)

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks, open_pool(Mapped, size=2) as pool:
            tasks.start_soon(read, pool)
            await until(lambda: started(tmp_path) == 2)
        assert len(errors) == 1
        with pytest.raises(PoolClosedError):
            async with pool.map("wait", []):
                pytest.fail("the block was entered")
    assert source.closed


# Leaving


@pytest.mark.parametrize("kind", ["plain", "waiting"])
@pytest.mark.parametrize("how", ["break", "raise", "group", "cancel", "unread", "stop"])
async def test_leaving_early_stops_the_calls_and_closes_the_input_before_the_block_is_left(
    how: str, kind: str, tmp_path: Path
) -> None:
    """What the body raises comes out as itself, a group as a group."""
    source = Source(folder=str(tmp_path))
    (tmp_path / "release0").touch()
    errors = {"raise": LookupError("mine"), "group": ExceptionGroup("mine", [LookupError()])}
    errors["stop"] = StopAsyncIteration("mine")
    async with tools_pool(Mapped, size=2) as pool:
        before = pids(pool)
        with anyio.CancelScope() as scope:
            try:
                async with pool.map("wait", getattr(source, kind)(), limit=4) as results:
                    if how != "unread":
                        async for result in results:
                            assert result == 0
                            break
                    await until(lambda: started(tmp_path) == 3)
                    await until(lambda: source.taken == 4)
                    if how in errors:
                        raise errors[how]
                    if how == "cancel":
                        scope.cancel()
                        await anyio.sleep(PATIENCE_S)
            except Exception as error:
                assert repr(error) == repr(errors.get(how))
                assert error is errors.get(how) or how == "group"  # trio makes groups anew
            assert len(lines(tmp_path / "stopped")) == started(tmp_path)
            assert source.closed
            assert source.cleaned or how not in ("break", "unread")
        assert scope.cancelled_caught == (how == "cancel")
        assert not pool.stats().busy
        assert pool.stats().queued == 0
        assert sorted(pids(pool)) == sorted(before)


async def test_a_channel_as_input_is_closed_so_that_its_sender_hears_of_it() -> None:
    async with tools_pool(Mapped) as pool, anyio.create_task_group() as tasks:
        tx, rx = anyio.create_memory_object_stream[dict[str, int]](0)
        told = anyio.Event()

        async def send() -> None:
            with tx, pytest.raises(anyio.BrokenResourceError):
                for number in range(10**9):
                    await tx.send({"number": number})
            told.set()

        tasks.start_soon(send)
        async with pool.map("double", rx) as results:
            assert [await anext(results) for _ in range(5)] == [0, 2, 4, 6, 8]
        await told.wait()


async def test_what_closing_the_input_raises_comes_out_of_the_block() -> None:
    class Unclosable(Source):
        def __aiter__(self) -> Unclosable:
            return self

        async def __anext__(self) -> Any:
            return self.next()

        async def aclose(self) -> None:
            raise OSError("cannot close")

    async with tools_pool(Mapped) as pool:
        with pytest.raises(OSError, match="cannot close"):
            async with pool.map("double", Unclosable()) as results:
                assert await anext(results) == 0


@asyncio_only
async def test_a_reader_cancelled_again_and_again_still_waits_for_its_tools(
    tmp_path: Path,
) -> None:
    source = Source(folder=str(tmp_path))

    async def read(pool: Pool) -> None:
        async with pool.map("wait", source.plain()) as results:
            await anext(results)

    async with tools_pool(Mapped, size=2) as pool:
        task = asyncio.ensure_future(read(pool))
        await until(lambda: started(tmp_path) == 2)
        for _ in range(5):
            task.cancel()
            await asyncio.sleep(0)
            assert not task.done()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(lines(tmp_path / "stopped")) == ["0", "1"]
        assert not pool.stats().busy


async def test_cancelling_one_wait_for_a_result_loses_none() -> None:
    async with tools_pool(Mapped, size=2) as pool:
        taken: list[int] = []
        async with pool.map("double", Source(200).waiting(), limit=3) as results:
            attempt = 0
            while True:
                attempt += 1
                with anyio.CancelScope() as scope:
                    if attempt % 2:
                        scope.cancel()
                    try:
                        result = await anext(results)
                    except StopAsyncIteration:
                        break
                    taken += [result]
        assert taken == [2 * number for number in range(200)]


async def test_a_map_cancelled_at_each_of_its_checkpoints_leaves_the_pool_whole(
    tmp_path: Path,
) -> None:
    """The k-th time that the loop gives others their turn, for each small k: silence, same pids."""
    async with tools_pool(Mapped, size=2) as pool:
        before = sorted(pids(pool))
        beaten: dict[Path, int] = {}
        for k in range(50):
            log = tmp_path / str(k)
            source = Source(log=str(log))
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:

                    async def cancel(
                        k: int = k, scope: anyio.CancelScope = scope, log: Path = log
                    ) -> None:
                        if k >= 25:  # from the first call on
                            await until(log.exists)
                        for _ in range(k % 25):
                            await anyio.lowlevel.checkpoint()
                        scope.cancel()

                    tasks.start_soon(cancel)
                    items = source.waiting() if k % 2 else source.plain()
                    async with pool.map("beat", items, ordered=k % 3 > 0) as results:
                        async for _ in results:
                            pass
            assert scope.cancelled_caught
            assert source.closed or not source.taken
            assert not pool.stats().busy
            beaten[log] = len(lines(log))
        await anyio.sleep(SETTLE_S)
        assert {log: len(lines(log)) for log in beaten} == beaten
        async with pool.map("pid", [{}] * 20) as results:
            assert {pid async for pid in results} <= set(before)
        assert sorted(pids(pool)) == before
        assert pool._core.scheduler.queued() == []


# What is refused


WRONG = {
    "limit": [0, -1, 1.5, True, "2"],
    "ordered": [None, 1, "yes"],
    "on_error": [None, "raise", True],
    "timeout": [0, -1, "3", True, float("inf")],
}


@pytest.mark.parametrize(("option", "value"), [(o, v) for o, vs in WRONG.items() for v in vs])
async def test_a_wrong_option_is_refused_on_entering(option: str, value: Any) -> None:
    async with tools_pool(Mapped) as pool:
        source = Source()
        with pytest.raises(ConfigError) as caught:
            async with pool.map("double", source.plain(), **{option: value}):
                pytest.fail("the block was entered")
        assert (caught.value.option, caught.value.value) == (option, value)
        assert not source.taken


@pytest.mark.parametrize("params", [None, 3, {"number": 1}, "number", b"number"])
async def test_what_is_no_iterable_of_params_is_refused_on_entering(params: Any) -> None:
    async with tools_pool(Mapped) as pool:
        with pytest.raises(TypeError, match="map takes an iterable"):
            async with pool.map("double", params):
                pytest.fail("the block was entered")


async def test_a_tool_that_is_not_there_or_streams_is_refused_on_entering() -> None:
    async with tools_pool(Mapped) as pool:
        with pytest.raises(ToolNotFoundError, match="did you mean 'double'"):
            async with pool.map("doubles", []):
                pytest.fail("the block was entered")
        with pytest.raises(InvalidParamsError, match="stream"):
            async with pool.map("count", []):
                pytest.fail("the block was entered")


async def test_one_task_reads_at_a_time_and_none_after_the_block(tmp_path: Path) -> None:
    async with tools_pool(Mapped) as pool:
        items = Source(1, folder=str(tmp_path)).plain()
        async with pool.map("wait", items) as results, anyio.create_task_group() as tasks:
            tasks.start_soon(anext, results)
            await until(lambda: started(tmp_path))
            with pytest.raises(anyio.BusyResourceError):
                await anext(results)
            await release_all(tmp_path, 1)
        with pytest.raises(anyio.ClosedResourceError):
            await anext(results)
