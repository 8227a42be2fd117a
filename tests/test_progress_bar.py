"""snakepit.progress: the items as they are, and a bar where rich and a terminal are."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import snakepit
from snakepit import Adapter, ConfigError, tool

ROOT = Path(snakepit.__file__).parents[1]
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class Doubling(Adapter):
    @tool
    def double(self, number: int) -> int:
        return 2 * number

    @tool
    def count(self, stop: int) -> Iterator[int]:
        yield from range(stop)


def on_terminal(source: str, **env: str) -> str:
    """What a script shows whose stderr and stdout are a terminal."""
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{source}"],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "100"} | env,
        ):
            os.close(theirs)
            theirs = -1
            shown = b""
            while True:
                try:
                    part = os.read(ours, 65536)
                except OSError:  # EIO: the other end is closed
                    break
                if not part:
                    break
                shown += part
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)
    return shown.decode()


async def test_results_and_chunks_pass_as_they_are() -> None:
    async with snakepit.open_pool(Doubling, size=1) as pool:
        items = [{"number": number} for number in range(20)]
        async with pool.map("double", items) as results:
            got = [result async for result in snakepit.progress(results)]
        assert got == [2 * number for number in range(20)]
        async with pool.stream("count", {"stop": 5}) as chunks:
            assert [chunk async for chunk in snakepit.progress(chunks)] == [0, 1, 2, 3, 4]


def test_plain_iterables_and_their_errors_pass_as_they_are() -> None:
    error = LookupError()

    def failing() -> Iterator[int]:
        yield 1
        raise error

    assert list(snakepit.progress([1, 2, 3], total=3, description="x")) == [1, 2, 3]
    assert list(snakepit.progress(iter("ab"))) == ["a", "b"]
    items = snakepit.progress(failing())
    assert next(items) == 1
    with pytest.raises(LookupError) as caught:
        next(items)
    assert caught.value is error


async def test_it_adds_no_wait_and_what_is_iterated_is_not_closed() -> None:
    class Numbers(AsyncIterator[int]):
        taken = 0

        async def __anext__(self) -> int:
            self.taken += 1
            return self.taken

    numbers = Numbers()
    for expected in (1, 2):
        async for number in snakepit.progress(numbers):
            assert number == expected
            break


async def test_the_results_of_a_sized_input_know_how_many_are_left() -> None:
    from operator import length_hint

    async with snakepit.open_pool(Doubling, size=1) as pool:
        async with pool.map("double", [{"number": 1}] * 3) as results:
            assert length_hint(results) == 3
            await anext(results)
            assert length_hint(results) == 2
        async with pool.map("double", iter([{"number": 1}])) as results:
            assert length_hint(results, -7) == -7


@pytest.mark.parametrize(
    ("option", "value"),
    [("total", -1), ("total", True), ("total", "3"), ("total", float("inf")), ("description", 3)],
)
def test_a_wrong_option_is_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=option):
        snakepit.progress([], **{option: value})


def test_what_cannot_be_iterated_is_a_type_error() -> None:
    wrong: Any = 3
    with pytest.raises(TypeError, match="not a int"):
        snakepit.progress(wrong)


PLAIN = """
import snakepit
for number in snakepit.progress([1, 2, 3], description="counting"):
    print("item", number)
"""
LEFT_EARLY = """
import snakepit
def use():
    for number in snakepit.progress([1, 2, 3], description="counting"):
        break
use()
print("after")
"""
INTERRUPTED = """
import snakepit
def items():
    yield 1
    raise KeyboardInterrupt
try:
    for number in snakepit.progress(items(), total=3, description="counting"):
        pass
except KeyboardInterrupt:
    print("after")
"""
NESTED = """
import snakepit
for number in snakepit.progress([1, 2], description="outer"):
    for letter in snakepit.progress("ab", description="inner"):
        print(number, letter)
"""


def test_a_terminal_shows_the_bar_and_what_is_printed_above_it() -> None:
    shown = on_terminal(PLAIN)
    assert "counting" in shown
    assert "3/3" in shown
    assert [f"item {number}" in shown for number in (1, 2, 3)] == [True] * 3
    assert shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR)


@pytest.mark.parametrize("source", [LEFT_EARLY, INTERRUPTED])
def test_the_terminal_is_the_users_again_when_the_iteration_is_over(source: str) -> None:
    """Left early, or ended by Ctrl+C: before the next statement."""
    shown = on_terminal(source)
    assert "1/3" in shown
    assert HIDE_CURSOR in shown
    assert shown.rindex(SHOW_CURSOR) < shown.rindex("after")


def test_a_bar_in_a_bar_harms_neither() -> None:
    shown = on_terminal(NESTED)
    assert "2/2" in shown
    assert all(text in shown for text in ("1 a", "1 b", "2 a", "2 b"))
    assert "Error" not in shown


def test_without_rich_the_items_pass_and_nothing_is_shown() -> None:
    assert on_terminal("sys.modules['rich'] = None\n" + PLAIN).split() == (
        ["item", "1", "item", "2", "item", "3"]
    )


def test_a_pipe_gets_what_is_printed_and_no_bar() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PLAIN], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (ran.stdout.split(), ran.stderr) == (["item", "1", "item", "2", "item", "3"], "")


def test_rich_is_not_imported_before_it_is_needed() -> None:
    source = "import sys, snakepit; snakepit.progress([]); print('rich' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "False\n"
