"""Fakes answer as they were told, refuse what the real adapter refuses, and remember their calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import snakepit
from snakepit import Adapter, tool
from snakepit.testing import fake_adapter


class Model(Adapter):
    """Never constructed here."""

    def __init__(self) -> None:
        raise AssertionError("a model of many gigabytes")

    @tool(idempotent=True, timeout=7)
    def predict(self, text: str, top_k: int = 5) -> list[str]:
        """What it may be.

        In detail.
        """
        raise AssertionError(text, top_k)

    @tool(name="babble")
    async def _babble(self, topic: str) -> AsyncIterator[str]:
        yield topic

    @staticmethod
    @tool
    def version() -> int:
        raise AssertionError


def in_memory(adapter: type) -> Any:
    return snakepit.open_pool(adapter, size=1, transport="memory")


async def test_an_answer_an_error_and_functions_of_each_kind() -> None:
    async def wait(seconds: float) -> str:
        await anyio.sleep(seconds)
        return "waited"

    def count(stop: int) -> Iterator[int]:
        yield from range(stop)

    async def count_slowly(stop: int) -> AsyncIterator[int]:
        for number in range(stop):
            await anyio.lowlevel.checkpoint()
            yield number

    fake = fake_adapter(
        label={"animal": "snake"},
        load=OSError(5, "no disk"),
        give_up=KeyError,
        double=lambda number: 2 * number,
        wait=wait,
        count=count,
        count_slowly=count_slowly,
    )
    async with in_memory(fake) as pool:
        assert await pool.execute("label") == {"animal": "snake"}
        assert await pool.execute("label", {"whatever": 1}) == {"animal": "snake"}
        for _ in range(2):
            with pytest.raises(OSError, match="no disk") as caught:
                await pool.execute("load")
            assert isinstance(caught.value, snakepit.ToolError)
            assert caught.value.errno == 5
        with pytest.raises(KeyError):
            await pool.execute("give_up")
        assert await pool.execute("double", {"number": 21}) == 42
        assert await pool.execute("wait", {"seconds": 0}) == "waited"
        for name in ("count", "count_slowly"):
            async with pool.stream(name, {"stop": 3}) as numbers:
                assert [number async for number in numbers] == [0, 1, 2]
        with pytest.raises(snakepit.InvalidParamsError):
            await pool.execute("double", {"count": 1})
    assert fake.calls == [
        ("label", {}),
        ("label", {"whatever": 1}),
        ("load", {}),
        ("load", {}),
        ("give_up", {}),
        ("double", {"number": 21}),
        ("wait", {"seconds": 0}),
        ("count", {"stop": 3}),
        ("count_slowly", {"stop": 3}),
    ]


async def test_one_that_stands_for_another_has_its_parameters_and_options() -> None:
    fake = fake_adapter(like=Model, predict=["snake"], babble=["a", "b"], version=lambda: 3)
    assert fake.__name__ == "FakeModel"
    async with in_memory(fake) as pool:
        spec = pool.tools()["predict"]
        assert spec.description == "What it may be."
        assert list(spec.parameters["properties"]) == ["text", "top_k"]
        assert spec.parameters["required"] == ["text"]
        assert await pool.execute("predict", {"text": "?"}) == ["snake"]
        for wrong in ({}, {"text": 1}, {"text": "?", "top": 1}):
            with pytest.raises(snakepit.InvalidParamsError):
                await pool.execute("predict", wrong)
        async with pool.stream("babble", {"topic": "x"}) as words:
            assert [word async for word in words] == ["a", "b"]
        assert await pool.execute("version") == 3
    assert fake.calls == [("predict", {"text": "?"}), ("babble", {"topic": "x"}), ("version", {})]


async def test_a_stream_of_another_may_fail() -> None:
    async with in_memory(fake_adapter(like=Model, babble=LookupError("no topic"))) as pool:
        with pytest.raises(LookupError, match="no topic"):
            async with pool.stream("babble", {"topic": "x"}) as words:
                await anext(words)


def test_a_tool_that_the_other_does_not_have_is_refused() -> None:
    with pytest.raises(
        snakepit.ConfigError, match=r"a tool of Model: .*'babble', 'predict', 'version'"
    ):
        fake_adapter(like=Model, predicts=1)


async def test_a_function_may_bring_options_of_its_own() -> None:
    @tool(idempotent=True, description="Twice as much.")
    def double(number: int) -> int:
        return 2 * number

    async with in_memory(fake_adapter(double=double)) as pool:
        assert pool.tools()["double"].description == "Twice as much."
        assert await pool.execute("double", {"number": 2}) == 4
    assert double(3) == 6
