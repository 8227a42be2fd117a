"""What lies in shared memory travels as it lies there: tables and arrays of any layout, at any depth."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import numpy as np
import polars
import pyarrow
import pyarrow.compute
import pytest
from _backends import one_loop_each
from pool_kit import tools_pool
from shm_adapters import MIB, Sharer, memory

from snakepit import ZeroCopy

pytestmark = one_loop_each


@functools.cache
def mixed() -> pyarrow.Table:
    return pyarrow.table(
        {
            "n": np.arange(MIB),
            "s": pyarrow.array([None, "a", "bc", ""] * (MIB // 4)),
            "d": pyarrow.array(["x", None, "y", "x"] * (MIB // 4)).dictionary_encode(),
            "l": pyarrow.array([[1], None, [2, 3], []] * (MIB // 4)),
            "b": np.arange(MIB) % 3 == 0,
        }
    )


@functools.cache
def nested() -> pyarrow.Array:
    return pyarrow.array([{"x": 1, "y": [None, "a"]}, None] * (MIB // 2))


def addresses(table: Any) -> list[int | None]:
    """Where the buffers of a table lie, those of the values of a dictionary too."""
    found: list[int | None] = []
    for column in table.columns:
        for chunk in column.chunks if isinstance(column, pyarrow.ChunkedArray) else [column]:
            parts = [chunk]
            if isinstance(chunk, pyarrow.DictionaryArray):
                parts = [chunk.indices, chunk.dictionary]
            for part in parts:
                found += [buffer and buffer.address for buffer in part.buffers()]
    return found


async def test_a_table_is_copied_once_and_from_then_on_never() -> None:
    async with tools_pool(Sharer, transport="shm", zero_copy=ZeroCopy(budget_mb=256)) as pool:
        there = await pool.execute("echo", {"value": {"deep": [mixed()]}})
        table = there["deep"][0]
        assert table.equals(mixed())
        assert table.schema.equals(mixed().schema, check_metadata=True)
        assert memory(pool).copies == 1
        for given in (table, table.slice(1000, 5), table.select(["d", "n"]), table.slice(3)):
            back = await pool.execute("echo", {"value": given})
            assert back.equals(given)
            assert addresses(back) == addresses(given)
        (batch,) = table.to_batches()
        back = await pool.execute("echo", {"value": batch})
        assert type(back) is pyarrow.RecordBatch
        assert addresses(back) == addresses(batch)
        both = pyarrow.concat_tables([table, table.slice(5, 10)])
        back = await pool.execute("echo", {"value": both})
        assert back.equals(both)
        assert addresses(back) == addresses(both)
        column = await pool.execute("echo", {"value": table["s"]})
        assert column.equals(table["s"])
        assert memory(pool).copies == 1
        assert await pool.execute("copied") == 0


async def test_of_a_table_only_what_lies_elsewhere_is_copied() -> None:
    async with tools_pool(Sharer, transport="shm", zero_copy=ZeroCopy(budget_mb=256)) as pool:
        table = await pool.execute("echo", {"value": mixed().select(["n", "s"])})
        before = memory(pool).copied_bytes
        added = table.append_column("z", pyarrow.array(np.zeros(MIB))).append_column("o", nested())
        back = await pool.execute("echo", {"value": added})
        assert back.equals(added)
        assert addresses(back)[:5] == addresses(table)
        new = memory(pool).copied_bytes - before
        assert 8 * MIB < new < 8 * MIB + 2 * nested().nbytes
        assert await pool.execute("copied") < 2 * nested().nbytes  # structs go again


async def test_a_polars_frame_of_shared_memory_is_not_copied() -> None:
    async with tools_pool(Sharer, transport="shm", zero_copy=ZeroCopy(budget_mb=128)) as pool:
        frame = await pool.execute("echo", {"value": polars.DataFrame({"n": np.arange(MIB)})})
        assert memory(pool).copies == 1
        back = await pool.execute("echo", {"value": frame})
        assert back.equals(frame)
        assert memory(pool).copies == 1
        assert await pool.execute("copied") == 0


async def test_arrays_that_are_not_contiguous_are_copied_once_or_not_at_all() -> None:
    async with tools_pool(Sharer, transport="shm", zero_copy=ZeroCopy(budget_mb=256)) as pool:
        heap = np.arange(4 * MIB, dtype="i8").reshape(2048, 2048)
        shared = pool.empty(heap.shape, heap.dtype)
        shared[:] = heap
        cuts: list[Any] = [
            np.s_[::2, ::3],
            np.s_[::-1, 5::-1],
            np.s_[:, 1000:],
            np.s_[3, ::-1],
            np.s_[::2, None, 1:],
        ]
        for cut in cuts:
            back = await pool.execute("echo", {"value": shared[cut]})
            assert (back == heap[cut]).all()
            if back.nbytes >= MIB:
                assert back.ctypes.data == shared[cut].ctypes.data
                assert back.strides == shared[cut].strides
            assert memory(pool).copies == 0
        wide = np.broadcast_to(shared, (2, 2048, 2048))
        assert await pool.execute("total", {"array": wide}) == wide.sum()
        assert memory(pool).copies == 0
        for number, array in enumerate((heap[::2, ::3], heap.T[::-1], heap[..., None][:, ::2]), 1):
            assert (await pool.execute("echo", {"value": array}) == array).all()
            assert memory(pool).copies == number
            assert memory(pool).copied_bytes == sum(
                one.nbytes for one in (heap[::2, ::3], heap.T, heap[:, ::2])[:number]
            )
        assert await pool.execute("copied") == 0


async def test_host_calls_sessions_and_inputs_share_as_well() -> None:
    async with tools_pool(Sharer, transport="shm", zero_copy=ZeroCopy(budget_mb=128)) as pool:
        pool.add_host_tool(lambda value: value, name="same")
        table = await pool.execute("echo", {"value": mixed().select(["n"])})
        back = await pool.execute("through_the_host", {"value": table})
        assert addresses(back) == addresses(table)
        async with pool.session() as session:
            back = await session.execute("echo", {"value": table})
            assert addresses(back) == addresses(table)

        async def slices() -> AsyncIterator[Any]:
            for number in range(3):
                await anyio.lowlevel.checkpoint()
                yield table.slice(number)

        async with pool.stream("each", {"values": slices()}) as items:
            assert [addresses(item) async for item in items] == [addresses(table)] * 3
        assert memory(pool).copies == 1
        assert await pool.execute("copied") == 0


async def test_without_room_the_same_values_are_given_away() -> None:
    async with tools_pool(Sharer, transport="shm", zero_copy=ZeroCopy(budget_mb=1)) as pool:
        strided = np.arange(2 * MIB)[::2]
        back = await pool.execute("echo", {"value": [mixed().select(["n", "s"]), strided]})
        assert back[0].equals(mixed().select(["n", "s"]))
        assert (back[1] == strided).all()
        assert memory(pool).references == 0
        assert memory(pool).donations == 2


class Rows:
    """Speaks the Arrow PyCapsule protocol and nothing else, and can be asked once, as a query."""

    def __init__(self, table: Any) -> None:
        self._tables = [table]

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        return self._tables.pop().__arrow_c_stream__(requested_schema)


def rows_of_duckdb() -> Any:
    duckdb = pytest.importorskip("duckdb", reason="needs DuckDB")
    return duckdb.sql(f"select range as n, 'row ' || range as s from range({MIB})")


def rows_of_a_stand_in() -> Any:
    numbers = pyarrow.array(np.arange(MIB))
    text = pyarrow.compute.binary_join_element_wise("row", numbers.cast("string"), " ")
    return Rows(pyarrow.table({"n": numbers, "s": text}))


@pytest.mark.parametrize("rows", [rows_of_a_stand_in, rows_of_duckdb])
async def test_whatever_speaks_the_arrow_protocol_is_asked_once_and_copied_once(
    rows: Callable[[], Any],
) -> None:
    """It may run a query then, in a thread; a worker sees a table."""
    async with tools_pool(Sharer, transport="shm", zero_copy=ZeroCopy(budget_mb=256)) as pool:
        table = await pool.execute("echo", {"value": {"deep": [rows()], "big": 2**70}})
        table = table["deep"][0]
        assert type(table) is pyarrow.Table
        assert table.num_rows == MIB
        assert table.slice(77, 1).to_pylist() == [{"n": 77, "s": "row 77"}]
        assert memory(pool).copies == 1
        back = await pool.execute("echo", {"value": table})
        assert addresses(back) == addresses(table)
        assert memory(pool).copies == 1
