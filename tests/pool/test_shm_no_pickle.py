"""Large values, and small ones, travel without pickle: where it is forbidden to both sides, nothing changes."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pytest
from _backends import one_loop_each
from pool_kit import tools_pool
from shm_adapters import MIB, PICKLE_FORBIDDEN, Sharer, memory

from snakepit import ZeroCopy

pytestmark = one_loop_each


class Tensor:
    """Speaks DLPack, and nothing else."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


def values() -> list[Any]:
    numbers = np.arange(MIB)
    text = ["a longer text than fits", None] * 100_000
    table = pyarrow.table({"n": numbers[:200_000], "s": text})
    return [
        numbers,
        numbers.reshape(1024, 1024)[::-1, ::2],
        np.zeros(MIB // 8, [("a", "i4"), ("b", "M8[us]"), ("c", "U3")]),
        memoryview(bytes(2 * MIB)),
        bytes(2 * MIB),
        bytearray(b"x" * MIB),
        table,
        table.to_batches()[0],
        table["s"],
        polars.DataFrame({"n": numbers, "t": ["x"] * MIB}),
        pandas.DataFrame({"n": numbers, "s": pandas.Categorical(["x", "y"] * (MIB // 2))}),
    ]


def is_same(value: Any, other: Any) -> bool:
    if hasattr(value, "equals"):
        return bool(value.equals(other))
    return type(value) is type(other) and bool(np.all(value == other))


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, forbidden in PICKLE_FORBIDDEN:
        monkeypatch.setattr(module, name, forbidden)
    with pytest.raises(AssertionError, match="pickle was used"):
        pickle.dumps(1)


async def test_no_value_is_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    given = values()
    async with tools_pool(Sharer, transport="shm", zero_copy=ZeroCopy(budget_mb=512)) as pool:
        pool.add_host_tool(lambda value: value, name="same")
        await pool.execute("forbid_pickle")
        forbid(monkeypatch)

        async def one(value: Any) -> AsyncIterator[Any]:
            yield value

        for value in given:
            back = await pool.execute("through_the_host", {"value": {"deep": [(value, 1.5)]}})
            assert is_same(back["deep"][0][0], value)
            async with pool.stream("each", {"values": one(value)}) as items:
                assert [is_same(item, value) async for item in items] == [True]
        tensor = await pool.execute("echo", {"value": Tensor(np.arange(MIB))})
        assert (tensor == np.arange(MIB)).all()
        assert memory(pool).references > len(given)
