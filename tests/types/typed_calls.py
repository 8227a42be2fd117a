# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
# mypy: disable-error-code="empty-body"
"""What type checkers make of the typed calls. Never run: `test_types.py` gives it to them.

`assert_type` states what is inferred; a line with `# type: ignore` must be an error: both checkers
report it if it is none.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any, assert_type

import snakepit
from snakepit import Adapter, BoundPool, Pool, Stream, SyncPool, SyncSession, tool


class Words(Adapter):
    @tool
    def count(self, text: str, at_least: int = 1) -> int: ...
    @tool(name="said", timeout=3)
    def say(self, text: str, /, *, loud: bool = False) -> str | None: ...
    @tool
    def ping(self) -> None: ...
    @tool
    async def later(self, word: str) -> list[str]: ...
    @tool
    def spell(self, word: str) -> Iterator[str]: ...
    @tool
    def numbers(self, stop: int = 3) -> Generator[int, None, None]: ...
    @tool
    async def spell_async(self, word: str) -> AsyncIterator[bytes]:
        yield b""

    @tool
    async def numbers_async(self) -> AsyncGenerator[float, None]:
        yield 1.0

    @tool
    def anything(self, value: object) -> Any: ...
    @tool
    async def total(self, numbers: AsyncIterator[int]) -> float: ...
    @tool
    def total_sync(self, numbers: Iterator[int]) -> float: ...
    @tool
    @staticmethod
    def static(number: int) -> str: ...
    @tool
    @classmethod
    def of_class(cls, number: int) -> bytes: ...


class Heir(Words):
    @tool
    def more(self, text: str) -> dict[str, int]: ...


@tool
def reverse(word: str, times: int = 1) -> str: ...


@tool
async def fetch(url: str) -> bytes: ...


@tool
def lines(path: str) -> Iterator[str]: ...


async def results(pool: Pool) -> None:
    assert_type(await pool.call(Words.count, "a", 2), int)
    assert_type(await pool.call(Words.count, text="a"), int)
    assert_type(await pool.call(Words.say, "a", loud=True), str | None)
    await pool.call(Words.ping)
    assert_type(await pool.call(Words.later, word="a"), list[str])
    assert_type(await pool.call(Words.static, 3), str)
    assert_type(await pool.call(Words.of_class, number=3), bytes)
    assert_type(await pool.call(Heir.count, "a"), int)
    assert_type(await pool.call(Heir.more, text="a"), dict[str, int])
    assert_type(await pool.call(Words.anything, 3), Any)
    assert_type(await pool.call(reverse, "a", times=2), str)
    assert_type(await pool.call(fetch, url="a"), bytes)


async def chunks(pool: Pool) -> None:
    async with pool.call_stream(Words.spell, word="a") as letters:
        assert_type(letters, Stream[str])
        assert_type([letter async for letter in letters], list[str])
    async with pool.call_stream(Words.numbers, 3) as numbers:
        assert_type(await anext(numbers), int)
    async with pool.call_stream(Words.spell_async, "a") as letters_too:
        assert_type(await anext(letters_too), bytes)
    async with pool.call_stream(Words.numbers_async) as numbers_too:
        assert_type(await anext(numbers_too), float)
    async with pool.call_stream(lines, "a") as texts:
        assert_type(await anext(texts), str)


async def views(pool: Pool) -> None:
    bound = pool.bind(timeout=3, idempotent=True, on_progress=print)
    assert_type(bound, BoundPool)
    assert_type(await bound.call(Words.count, "a"), int)
    assert_type(await bound.call(fetch, "a"), bytes)
    async with bound.call_stream(Words.spell, "a") as letters:
        assert_type(await anext(letters), str)


def blocking(pool: SyncPool, session: SyncSession) -> None:
    assert_type(pool.call(Words.count, "a"), int)
    assert_type(pool.call(Words.later, "a"), list[str])
    assert_type(pool.call(reverse, "a", times=2), str)
    assert_type(pool.call(fetch, "a"), bytes)
    assert_type(session.call(Words.say, "a", loud=True), str | None)
    with pool.call_stream(Words.spell, word="a") as letters:
        assert_type(next(letters), str)
    with session.call_stream(Words.spell_async, "a") as letters_too:
        assert_type(list(letters_too), list[bytes])
    assert_type(pool.call(Words.anything, 3), Any)
    pool.call(Words.count)  # type: ignore[call-overload]
    list(pool.call(Words.spell, "a"))  # type: ignore[call-overload]
    pool.call_stream(Words.count, "a")  # type: ignore[call-overload]


async def source() -> AsyncIterator[int]:
    yield 1


async def inputs(pool: Pool) -> None:
    assert_type(await pool.call(Words.total, source()), float)
    assert_type(await pool.call(Words.total, numbers=source()), float)
    await pool.call(Words.total_sync, source())  # type: ignore[call-overload]  # as the guide says


async def errors(pool: Pool) -> None:
    await pool.call(Words.count)  # type: ignore[call-overload]
    await pool.call(Words.count, 3)  # type: ignore[call-overload]
    await pool.call(Words.count, text=b"a")  # type: ignore[call-overload]
    await pool.call(Words.count, "a", 2, 3)  # type: ignore[call-overload]
    await pool.call(Words.count, "a", unknown=1)  # type: ignore[call-arg, arg-type]
    await pool.call(Words.say, text="a")  # type: ignore[call-overload]
    await pool.call(Words.later, words="a")  # type: ignore[call-overload]
    await pool.call(Words.static)  # type: ignore[call-overload]
    await pool.call(reverse)  # type: ignore[call-overload]
    await pool.call(reverse, times=2)  # type: ignore[call-overload]
    await pool.call(reverse, 3)  # type: ignore[call-overload]
    await pool.call("count", text="a")  # type: ignore[call-overload]
    await pool.call(Words.anything)  # type: ignore[call-overload]
    await pool.call(Words.spell, "a")  # type: ignore[misc]
    await pool.call(Words.numbers)  # type: ignore[misc]
    await pool.call(Words.spell_async, word="a")  # type: ignore[misc]
    await pool.call(lines, "a")  # type: ignore[misc]
    pool.call_stream(Words.count, "a")  # type: ignore[call-overload]
    pool.call_stream(Words.spell, 3)  # type: ignore[call-overload]
    pool.call_stream(lines)  # type: ignore[call-overload]
    pool.bind(timeout="3")  # type: ignore[arg-type]
    pool.map("count", [], on_error="raise")  # type: ignore[arg-type]
    pool.map("count", 3)  # type: ignore[arg-type]


async def mapped(pool: Pool) -> None:
    async with pool.map("count", [{"text": "a"}], on_error="return") as counts:
        assert_type(await anext(counts), Any)
        async for _ in snakepit.progress(counts, total=3, description="counting"):
            pass
    async with pool.call_stream(Words.spell, "a") as letters:
        assert_type([letter async for letter in snakepit.progress(letters)], list[str])
    assert_type(list(snakepit.progress([1, 2])), list[int])
    snakepit.progress(3)  # type: ignore[call-overload]
