"""One table of values, every transport: the same type, value and writability, both ways.

A transport that is added joins `tests/_transports.py` and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pytest
from _backends import one_loop_each
from _transports import TRANSPORTS
from _values_kit import SAMPLES, portrait, read_only, same
from connecting import worker
from pool_kit import tools_pool
from value_adapters import Keeper

from snakepit import Adapter, Pool, Startup, open_pool, tool
from snakepit.protocol import decode_value, encode_value

pytestmark = one_loop_each

MIB = 2**20
EDGES = [edge + step for edge in (2**16, MIB) for step in (-1, 0, 1)]
KINDS: dict[str, Callable[[int], Any]] = {
    "bytes": lambda size: (bytes(range(251)) * (size // 251 + 1))[:size],
    "bytearray": lambda size: bytearray(KINDS["bytes"](size)),
    "memoryview": lambda size: memoryview(KINDS["bytes"](size)),
    "writable memoryview": lambda size: memoryview(KINDS["bytearray"](size)),
    "array": lambda size: np.frombuffer(KINDS["bytes"](size), dtype="u1"),
    "writable array": lambda size: np.arange(size, dtype="u1"),
    "array of floats": lambda size: np.arange(size / 8),
    "str": lambda size: "x" * size,
    "str of two bytes a letter": lambda size: "ü" * (size // 2) + "x" * (size % 2),
    "list": lambda size: ["x" * 97] * (size // 99) + [7] * (size % 99),  # the body is so large
    "list of arrays": lambda size: [np.zeros(size // 2, "u1"), (b"a" * (size // 2), size)],
}
FRAMES = ("pandas", "polars", "pyarrow")  # their own equality is no bool
TABLE: dict[str, dict[str, Any]] = {
    "small": SAMPLES
    | {
        "arrow table": pyarrow.table({"n": [1, None, 3], "s": ["a", "b", None]}),
        "polars frame": polars.DataFrame({"n": [1, None, 3], "s": ["a", "b", None]}),
        "pandas frame": pandas.DataFrame({"n": [1.5, 2.5], "s": ["a", "b"]}, index=[3, 4]),
    },
    "around 64 KiB and 1 MiB": {
        f"{kind} of {size}": make(size) for kind, make in KINDS.items() for size in EDGES
    },
}


class Witness(Adapter):
    """Says what arrived, and makes the same values itself."""

    @tool
    def see(self, value: Any) -> str:
        return portrait(value)

    @tool
    def make(self, family: str, name: str) -> Any:
        return TABLE[family][name]

    @tool
    def echo(self, value: Any) -> Any:
        return value


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """Of a worker that no pool has started."""
    path = f"unix:{tmp_path_factory.mktemp('worker') / 'socket'}"
    with worker("--listen", path, adapter="test_values_on_every_transport:Witness") as where:
        yield where


@asynccontextmanager
async def pool_on_each_transport(**options: Any) -> AsyncGenerator[dict[str, Pool]]:
    """Workers that import a good deal; under coverage that takes its time."""
    async with AsyncExitStack() as stack:
        yield {
            transport: await stack.enter_async_context(
                open_pool(
                    Witness, size=1, transport=transport, startup=Startup(timeout=30), **options
                )
            )
            for transport in TRANSPORTS
        }


@pytest.mark.unmeasured
@pytest.mark.timeout(200)
@pytest.mark.parametrize("family", TABLE)
async def test_a_value_is_the_same_on_every_transport(family: str, address: str) -> None:
    """And where a pool is connected to a worker, the host of which stands between."""
    async with pool_on_each_transport() as pools, open_pool(connect=[address]) as connected:
        pools["connect"] = connected
        for name, value in TABLE[family].items():
            body, buffers = encode_value(value)
            expected = portrait(decode_value(body, tuple(map(bytes, buffers))))
            for transport, pool in pools.items():
                where = f"{name} on {transport}"
                assert await pool.execute("see", {"value": value}) == expected, where
                made = await pool.execute("make", {"family": family, "name": name})
                assert portrait(made) == expected, where
                back = await pool.execute("echo", {"value": value})
                assert portrait(back) == expected, where
                assert read_only(back), where
                if type(value).__module__.partition(".")[0] not in FRAMES:
                    assert same(value, back), where


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_no_value_is_shared_with_the_other_side(transport: str) -> None:
    """What a tool or a caller changes in its own copy, the other one does not see."""
    async with tools_pool(Keeper, transport=transport) as pool:
        array, listed, data = np.zeros(2 * MIB, "u1"), [1], bytearray(b"abc")
        await pool.execute("keep", {"value": [array, listed, data]})
        array[:], data[:] = 1, b"xyz"
        listed.append(2)
        kept = await pool.execute("kept")
        assert not kept[0].any()
        assert kept[1:] == [[1], b"abc"]
        assert await pool.execute("change_what_was_returned") == [[1], b"abc"]
        assert kept[1:] == [[1], b"abc"]
        async with pool.stream("one_array_again_and_again") as arrays:
            assert [int(array[0]) async for array in arrays] == [0, 1, 2, 3]
