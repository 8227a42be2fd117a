"""The event loop goes on turning while large values are copied, and while memory is given up."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import functions
import numpy as np
import pandas
import polars
import pyarrow
import pytest
from _backends import one_loop_each
from pool_kit import tools_pool, until
from shm_adapters import MIB, Sharer, memory

from snakepit import Pool, ZeroCopy
from snakepit.pool import _codec, _functions
from snakepit.protocol import _arrow
from snakepit.shm import Block, Heap

LARGE: dict[str, Callable[[], Any]] = {
    "an array": lambda: np.ones(MIB),
    "an array that is not contiguous": lambda: np.ones(MIB)[::4],
    "a table": lambda: pyarrow.table({"n": np.ones(MIB)}),
    "bytes": lambda: bytes(5 * MIB),
}


@pytest.mark.parametrize("kind", LARGE)
async def test_the_loop_turns_while_a_large_argument_is_copied(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were it copied on the loop, nobody would let it."""
    may_go, begun = threading.Event(), threading.Event()
    fill = Block.fill

    def fill_when_let(block: Block, source: Any) -> None:
        begun.set()
        assert may_go.wait(30)
        fill(block, source)

    async with tools_pool(Sharer, transport="shm", zero_copy=ZeroCopy(budget_mb=128)) as pool:
        monkeypatch.setattr(Block, "fill", fill_when_let)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.execute, "keep", {"value": LARGE[kind]()})
            await until(begun.is_set)
            may_go.set()
        assert memory(pool).copies == 1


@one_loop_each
async def test_segments_are_made_in_a_thread_however_little_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One slab holds many small values, and garbage may have to be collected for it."""
    made_in: list[int] = []
    take = Heap.take

    def take_and_tell(heap: Heap, nbytes: int) -> Block | None:
        made_in.append(threading.get_ident())
        return take(heap, nbytes)

    async with tools_pool(Sharer, transport="shm", zero_copy=ZeroCopy(threshold=2**16)) as pool:
        monkeypatch.setattr(Heap, "take", take_and_tell)
        for _ in range(2):
            await pool.execute("keep", {"value": np.ones(2**14)})
    assert len(made_in) == 1
    assert made_in != [threading.get_ident()]


async def test_memory_that_a_worker_has_given_up_is_unmapped_in_a_thread() -> None:
    async with tools_pool(Sharer, transport="shm", zero_copy=ZeroCopy(budget_mb=128)) as pool:
        result = await pool.execute("ones", {"size": 2 * MIB})
        heap: Any = pool._core.places
        (segment,) = (one for one in heap._by_number.values() if one.size > 8 * MIB)
        ends: list[int] = []
        weakref.finalize(segment.mapping, lambda: ends.append(threading.get_ident()))
        del segment, result
        await pool.execute("give_up_what_idles")
        await until(lambda: ends)
        assert ends != [threading.get_ident()]


STRINGS = ["x" * 97] * 60_000  # of 5.6 MiB
TAKES_LONG: dict[str, Callable[[], Any]] = {
    "bytes": lambda: bytes(5 * MIB),
    "bytearray": lambda: bytearray(5 * MIB),
    "several, long together": lambda: [bytes(3 * MIB), bytes(3 * MIB)],
    "a table with strings": lambda: pyarrow.table({"s": STRINGS}),
    "a polars frame": lambda: polars.DataFrame({"s": STRINGS}),
    "a pandas frame": lambda: pandas.DataFrame({"n": np.ones(MIB)}),
}
TAKES_NO_TIME: dict[str, Callable[[], Any]] = {
    "an array": lambda: np.ones(MIB),
    "a memoryview": lambda: memoryview(bytes(5 * MIB)),
    "a table of numbers": lambda: pyarrow.table({"n": np.ones(MIB), "flag": [True] * MIB}),
    "bytes, not so many": lambda: bytes(4 * MIB),
}


class Where:
    """Calls a function of the codec's, and notes which thread it ended well in."""

    def __init__(self, name: str, monkeypatch: pytest.MonkeyPatch, module: Any = _codec) -> None:
        self._function = getattr(module, name)
        self.threads: list[int] = []
        monkeypatch.setattr(module, name, self)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        value = self._function(*arguments, **options)
        self.threads.append(threading.get_ident())
        return value

    def take(self) -> list[bool]:
        """Was it the loop's, each time?"""
        taken, self.threads = self.threads, []
        return [thread == threading.get_ident() for thread in taken]


@one_loop_each
@pytest.mark.parametrize("transport", ["shm", "stdio"])
async def test_what_takes_long_to_read_is_read_in_a_thread_and_nothing_else(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = Where("decode_value", monkeypatch)
    values = {name: make() for name, make in (TAKES_LONG | TAKES_NO_TIME).items()}
    async with tools_pool(Sharer, transport=transport, zero_copy=ZeroCopy(budget_mb=256)) as pool:
        on_loop = {}
        for name, value in values.items():
            await pool.execute("echo", {"value": value})
            on_loop[name] = where.take()
    assert on_loop == {name: [name in TAKES_NO_TIME] for name in values}


@one_loop_each
async def test_items_and_results_of_a_map_are_read_there_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    where = Where("decode_value", monkeypatch)
    value = bytes(range(256)) * (5 * MIB // 256)
    async with tools_pool(Sharer, transport="shm", zero_copy=ZeroCopy(budget_mb=256)) as pool:
        async with pool.map("echo", [{"value": value}] * 2) as results:
            assert [result == value async for result in results] == [True, True]
        assert where.take() == [False, False]
        async with pool.stream("repeat", {"value": value, "times": 2}) as items:
            assert [item == value async for item in items] == [True, True]
        assert where.take() == [False, False]


@one_loop_each
async def test_arguments_that_have_to_be_converted_are_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    where = Where("encode_arguments", monkeypatch)
    frame = pandas.DataFrame({"n": np.ones(MIB)})
    rows = pyarrow.table({"n": [1, 2]}).to_reader  # like a query that runs when it is asked
    async with tools_pool(Sharer, transport="shm", zero_copy=ZeroCopy(budget_mb=256)) as pool:
        for value, same in (
            (frame, frame.equals),
            (polars.DataFrame({"s": STRINGS}), lambda back: back["s"].to_list() == STRINGS),
            ([rows(), 7], lambda back: back == [rows().read_all(), 7]),
        ):
            assert same(await pool.execute("echo", {"value": value}))
            assert where.take() == [False]
        async with pool.map("echo", [{"value": frame}] * 2) as results:
            assert [frame.equals(result) async for result in results] == [True, True]
        assert where.take() == [False, False]
        async with pool.stream("repeat", {"value": frame, "times": 1}) as items:
            assert [frame.equals(item) async for item in items] == [True]
        assert where.take() == [False]
        await small(pool)
        assert where.take() == []  # the loop did it by itself


async def small(pool: Pool) -> None:
    for value in (np.ones(MIB), pandas.DataFrame({"n": [1]}), polars.DataFrame({"n": [1]})):
        await pool.execute("keep", {"value": value})


async def test_in_virtual_time_no_thread_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that jumps would not wait for it."""
    where = Where("decode_value", monkeypatch)
    async with tools_pool(Sharer, transport="memory") as pool:
        assert await pool.execute("echo", {"value": bytes(5 * MIB)}) == bytes(5 * MIB)
    assert where.take() == [True]


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> Where:
    """Of pandas frames by this process."""
    return Where("_export_pandas", monkeypatch, _arrow)


@one_loop_each
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_host_calls_are_read_and_answered_there_as_well(
    kind: str, conversions: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Where("decode_value", monkeypatch)
    large, frame = bytes(5 * MIB), pandas.DataFrame({"n": np.ones(MIB)})
    ran_in: list[int] = []

    def swap(value: Any) -> Any:
        assert value == large
        ran_in.append(threading.get_ident())
        return frame

    async def wait_and_swap(value: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        return swap(value)

    async with tools_pool(Sharer, transport="shm", zero_copy=ZeroCopy(budget_mb=256)) as pool:
        pool.add_host_tool(swap if kind == "sync" else wait_and_swap, name="same")
        assert frame.equals(await pool.execute("through_the_host", {"value": large}))
    assert ran_in == [threading.get_ident()]  # the function itself has its place on the loop
    assert reads.take() == [False, False]  # what it was called with, and the frame that came back
    assert conversions.take() == [False]


@one_loop_each
async def test_items_of_an_input_are_converted_there(conversions: Where) -> None:
    frame = pandas.DataFrame({"n": np.ones(MIB)})

    async def frames() -> Any:
        yield pandas.DataFrame({"n": [1]})
        yield frame

    async with (
        tools_pool(Sharer, transport="shm", zero_copy=ZeroCopy(budget_mb=256)) as pool,
        pool.stream("each", {"values": frames()}) as items,
    ):
        assert [frame.equals(item) async for item in items] == [False, True]
    assert conversions.take() == [True, False]


@one_loop_each
@pytest.mark.parametrize("transport", ["shm", "stdio"])
async def test_what_is_copied_to_be_the_caller_s_own_is_copied_there(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came through pipes is the caller's already, but for bytes."""
    reads = Where("decode_value", monkeypatch)
    own = ZeroCopy(budget_mb=256, copy_results=True)
    async with tools_pool(Sharer, transport=transport, zero_copy=own) as pool:
        await pool.execute("echo", {"value": bytes(5 * MIB)})
        assert reads.take() == [False]
        await pool.execute("echo", {"value": np.ones(MIB)})
        assert reads.take() == [transport == "stdio"]
        await pool.execute("echo", {"value": np.ones(MIB // 4)})
        assert reads.take() == [True]


@one_loop_each
@pytest.mark.parametrize("transport", ["shm", "stdio"])
async def test_what_functions_return_is_unpickled_there(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Where("read_outcome", monkeypatch, _functions)
    large, small = bytes(5 * MIB), bytes(MIB)
    async with tools_pool(None, transport=transport) as pool:
        executor = pool.as_executor()
        for value, on_loop in ((small, True), (large, False)):
            assert await pool.run_sync(functions.same, value) == value
            future = executor.submit(functions.same, value)
            assert await anyio.to_thread.run_sync(future.result, 20) == value
            assert reads.take() == [on_loop, on_loop]
        with pytest.raises(ZeroDivisionError):
            await pool.run_sync(functions.fail, ZeroDivisionError(large))
        future = executor.submit(functions.fail, StopIteration(large))  # which no task may raise
        error = await anyio.to_thread.run_sync(future.exception, 20)
        assert type(error) is StopIteration
        assert reads.take() == [False, False]


@one_loop_each
async def test_a_pool_that_closes_leaves_no_future_without_its_large_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_go, begun = threading.Event(), threading.Event()
    read_outcome = _functions.read_outcome

    def read_when_let(*arguments: Any) -> Any:
        begun.set()
        assert may_go.wait(30)
        return read_outcome(*arguments)

    async with tools_pool(None, transport="shm") as pool:
        monkeypatch.setattr(_functions, "read_outcome", read_when_let)
        future = pool.as_executor().submit(functions.same, bytes(5 * MIB))
        await until(begun.is_set)
        may_go.set()
    assert future.result(0) == bytes(5 * MIB)
