"""Values go to a real worker and back: equal, of the same type, however large."""

from __future__ import annotations

import hashlib
from pathlib import Path

import anyio
import anyio.lowlevel
import functions
import numpy as np
import pytest
from _backends import one_loop_each
from _values_kit import SAMPLES, read_only, same
from pool_kit import pids, run_script, tools_pool

pytestmark = one_loop_each

MIB = 2**20


@pytest.mark.parametrize("name", SAMPLES)
async def test_a_value_comes_back_the_same(name: str) -> None:
    """Type, value, order, dtype and shape; arrays and memoryviews are read-only."""
    value = SAMPLES[name]
    async with tools_pool() as pool:
        back = await pool.execute("echo", {"value": value})
        stacked = await pool.execute("echo", {"value": [value, (value,)]})
    assert same(value, back)
    assert same([value, (value,)], stacked)
    assert read_only(back)


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 30_000_000])
async def test_bytes_of_any_size_arrive_as_bytes_both_ways(size: int) -> None:
    """Around the size of a part and far beyond it, as argument and as result."""
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    async with tools_pool() as pool:
        assert await pool.execute("describe", {"value": data}) == ("bytes", size, True)
        back = await pool.execute("echo", {"value": data})
        assert type(back) is bytes
        assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest()
        made = await pool.execute("make_bytes", {"size": size})
        assert len(made) == size
        assert made[:256] == bytes(range(256))[: size if size >= 256 else 0] + bytes(
            size if size < 256 else 0
        )


@pytest.mark.parametrize("size", [0, 1000, MIB // 8, MIB, 4_000_000])
async def test_large_arrays_arrive_whole_and_read_only_on_both_sides(size: int) -> None:
    """Eight bytes a number: from nothing to 32 MB."""
    array = np.arange(size, dtype="<f8")
    async with tools_pool() as pool:
        assert await pool.execute("describe", {"value": array}) == ("ndarray", size, True)
        back = await pool.execute("echo", {"value": array})
        assert same(array, back)
        assert not back.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            back[...] = 0
        assert array.flags.writeable


async def test_several_large_members_of_one_value_keep_their_places() -> None:
    value = {
        "a": bytes([1]) * (MIB + 5),
        "b": [np.full(300_000, 2.0), (bytearray([3]) * (2 * MIB), "x" * (MIB + 1))],
        "c": memoryview(bytes([4]) * (3 * MIB)),
        "d": bytes([1]) * (MIB + 5),
        "e": 2 ** (9 * MIB),
    }
    async with tools_pool() as pool:
        back = await pool.execute("echo", {"value": value})
    assert list(back) == list(value)
    assert all(same(back[name], value[name]) for name in ("a", "b", "c", "d"))
    assert back["e"].bit_length() == value["e"].bit_length()  # type: ignore[attr-defined]


async def test_long_texts_and_long_lists_of_small_things() -> None:
    async with tools_pool() as pool:
        text = "ü" * (3 * MIB)
        assert await pool.execute("echo", {"value": text}) == text
        numbers = list(range(500_000))
        assert await pool.execute("echo", {"value": numbers}) == numbers


async def test_small_calls_are_served_while_large_values_are_on_their_way() -> None:
    """Four values of 20 MB both ways at once on two workers; 200 small calls meanwhile."""
    answered: list[str] = []
    async with tools_pool(size=2) as pool:
        before = sorted(pids(pool))

        async def large(number: int) -> None:
            value = np.full(2_500_000, float(number))
            back = await pool.execute("echo", {"value": value})
            assert same(value, back)
            answered.append("large")

        async def small() -> None:
            for number in range(50):
                assert await pool.execute("add", {"left": number}) == number + 1
            answered.append("small")

        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(large, number)
                tasks.start_soon(small)
        assert sorted(answered) == ["large"] * 4 + ["small"] * 4
        assert sorted(pids(pool)) == before


async def test_the_loop_goes_on_while_a_large_value_travels() -> None:
    """A ticking neighbour is not held up for as long as 30 MB take both ways."""
    gaps: list[float] = []
    async with tools_pool() as pool, anyio.create_task_group() as tasks:

        async def tick() -> None:
            last = anyio.current_time()
            while True:
                await anyio.lowlevel.checkpoint()
                now = anyio.current_time()
                gaps.append(now - last)
                last = now

        tasks.start_soon(tick)
        await pool.execute("echo", {"value": bytes(30_000_000)})
        tasks.cancel_scope.cancel()
    assert len(gaps) > 50
    assert max(gaps) < 2


async def test_a_tool_may_change_what_it_got_and_the_host_does_not_see_it() -> None:
    """Lists and bytearrays are the worker's own; arrays are to be copied first."""
    async with tools_pool(None) as pool:
        mine = [1, 2]
        assert await pool.run_sync(functions.append, mine) == [1, 2, 3]
        assert mine == [1, 2]


SCRIPT = """
import enum, trio, snakepit

class Colour(enum.Enum):
    RED = "red"

class Paint(snakepit.Adapter):
    @snakepit.tool
    def mix(self, colour: Colour) -> Colour:
        assert colour is Colour.RED
        return colour

async def main():
    async with snakepit.open_pool(Paint, size=1) as pool:
        print(await pool.execute("mix", {"colour": Colour.RED}) is Colour.RED)

if __name__ == "__main__":
    trio.run(main)
"""


def test_an_enum_of_the_script_itself_travels_both_ways(tmp_path: Path) -> None:
    """Here it lives in `__main__`, in the worker in `__mp_main__`: it is the same one."""
    result = run_script(tmp_path, SCRIPT)
    assert (result.stdout, result.returncode) == ("True\n", 0), result.stderr
