"""pool.call, call_stream and bind: a tool called by its method. Types: `test_types.py`."""

from __future__ import annotations

import functools
from typing import Any

import anyio
import mapped
import pytest
from _backends import one_loop_each
from mapped import Heir, Mapped, letters, reverse
from pool_kit import tools_pool

from snakepit import (
    Adapter,
    BoundPool,
    CallTimeoutError,
    ConfigError,
    InvalidParamsError,
    ToolNotFoundError,
    tool,
)
from snakepit.pool._methods import as_call

pytestmark = one_loop_each


async def test_a_method_is_called_with_arguments_by_position_and_by_name() -> None:
    """Sync, async, static, of the class, with a name of its own."""
    async with tools_pool(Mapped) as pool:
        assert await pool.call(Mapped.double, 4) == 8
        assert await pool.call(Mapped.double, number=4) == 8
        assert await pool.call(Mapped.later, 4) == [4]
        assert await pool.call(Mapped.greet, "you") == "hello you"
        assert await pool.call(Mapped.greet, "you", "hi", loud=True) == "HI YOU"
        assert await pool.call(Mapped.static_below, 4) == 5
        assert await pool.call(Mapped.static_above, number=4) == 6
        assert await pool.call(Mapped.of_class, 4) == "Mapped 4"
        with pytest.raises(ValueError, match="below"):
            await pool.call(Mapped.double, -1)


async def test_inherited_and_overridden_methods_are_the_tools_that_the_worker_has() -> None:
    async with tools_pool(Heir) as pool:
        assert await pool.call(Heir.double, 4) == 12
        assert await pool.call(Mapped.double, 4) == 12
        assert await pool.call(Heir.greet, "you") == "hello you"
        assert await pool.call(Heir.of_class, 4) == "Heir 4"


async def test_the_functions_of_a_module_are_called_by_themselves() -> None:
    async with tools_pool(mapped) as pool:
        assert await pool.call(reverse, "ab") == "ba"
        assert await pool.call(reverse, "ab", times=2) == "baba"
        async with pool.call_stream(letters, "abc") as items:
            assert [item async for item in items] == ["a", "b", "c"]


async def test_generators_of_both_kinds_stream() -> None:
    async with tools_pool(Mapped) as pool:
        async with pool.call_stream(Mapped.count, 3) as numbers:
            assert [number async for number in numbers] == [0, 1, 2]
        async with pool.call_stream(Mapped.count_async, stop=2) as texts:
            assert [text async for text in texts] == ["0", "1"]
        with pytest.raises(InvalidParamsError, match="stream"):
            await pool.call(Mapped.count, 3)
        with pytest.raises(InvalidParamsError, match="execute"):
            async with pool.call_stream(Mapped.double, 3):  # type: ignore[call-overload]
                pytest.fail("the block was entered")


async def test_arguments_that_do_not_fit_are_named() -> None:
    call: Any
    async with tools_pool(Mapped) as pool:
        call = pool.call
        for arguments, named, words in [
            ((Mapped.double, 1, 2), {}, "got 2 arguments, and takes 1 by position"),
            ((Mapped.double, 1), {"number": 2}, "'number' twice"),
            ((Mapped.pid, 1), {}, "got 1 arguments, and takes none by position"),
            ((Mapped.greet, "a", "b", True), {}, "takes 2 by position"),
            ((Mapped.double,), {}, "missing argument 'number'"),
            ((Mapped.double, 1), {"other": 2}, "unknown argument 'other'"),
            ((Mapped.double, "x"), {}, "expected int"),
        ]:
            with pytest.raises(InvalidParamsError, match=words):
                await call(*arguments, **named)


def plain() -> None: ...


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (Mapped.no_tool, "Mapped.no_tool is no tool: there is no @tool on it"),
        (plain, "plain is no tool"),
        (len, "len is no tool"),
        (Mapped, "Mapped is no tool"),
        ("double", "itself, not its name; execute"),
        (None, "None is no tool"),
        ([], "no tool"),
        (tool(functools.partial(plain)), "does not know its name"),
    ],
)
async def test_what_is_no_tool_is_a_type_error_that_says_so(wrong: Any, words: str) -> None:
    async with tools_pool(Mapped) as pool:
        with pytest.raises(TypeError, match=words):
            await pool.call(wrong)
        with pytest.raises(TypeError, match=words):
            pool.call_stream(wrong)
        assert pool.stats().requests == 0


def test_methods_of_classes_that_nobody_can_find_are_known_by_their_place() -> None:
    class Local(Adapter):
        @tool
        def add(self, left: int, right: int) -> int:
            return left + right

    @tool
    def alone(left: int, *more: int, right: int) -> int:
        return left + right

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]
        __name__ = "unhashable"

        def __call__(self, left: int) -> int:
            return left

    assert as_call(Local.add, (1,), {"right": 2}) == ("add", {"left": 1, "right": 2})
    assert as_call(Local().add, (1,), {}) == ("add", {"left": 1})
    assert as_call(alone, (1,), {"right": 2}) == ("alone", {"left": 1, "right": 2})
    assert as_call(tool(Unhashable()), (1,), {}) == ("unhashable", {"left": 1})


async def test_a_tool_that_this_pool_has_not_is_not_found() -> None:
    async with tools_pool(Mapped) as pool:
        with pytest.raises(ToolNotFoundError):
            await pool.call(reverse, "ab")


# bind


async def test_a_view_has_its_options_for_every_call() -> None:
    shown: list[Any] = []
    async with tools_pool(Mapped) as pool:
        hasty = pool.bind(timeout=0.2)
        assert isinstance(hasty, BoundPool)
        assert "timeout=0.2" in repr(hasty)
        assert await hasty.call(Mapped.double, 2) == 4
        for call in (
            lambda: hasty.call(Mapped.sleep),
            lambda: hasty.execute("sleep"),
        ):
            with pytest.raises(CallTimeoutError):
                await call()
        with pytest.raises(CallTimeoutError):
            async with hasty.map("sleep", [{}]) as results:
                await anext(results)
        with pytest.raises(CallTimeoutError):
            async with hasty.stream("count", {"stop": 10**9}, window=1) as numbers:
                async for _ in numbers:
                    await anyio.sleep(0.01)
        with pytest.raises(CallTimeoutError):
            async with hasty.call_stream(Mapped.count, 10**9) as numbers_too:
                async for _ in numbers_too:
                    await anyio.sleep(0.01)
        assert (
            await pool.bind(on_progress=lambda *told: shown.append(told)).call(Mapped.tell, 3) == 3
        )
        assert shown[-1] == (3, 3, None)


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("timeout", 0, ConfigError),
        ("timeout", "3", ConfigError),
        ("idempotent", 1, ConfigError),
        ("on_progress", "print", TypeError),
    ],
)
async def test_a_wrong_option_is_refused_at_once(option: str, value: Any, error: type) -> None:
    async with tools_pool(Mapped) as pool:
        with pytest.raises(error, match=option):
            pool.bind(**{option: value})


async def test_no_option_is_taken_and_then_does_nothing() -> None:
    async with tools_pool(Mapped) as pool:
        view = pool.bind(on_progress=print)
        for use in (
            lambda: view.map("double", []),
            lambda: view.stream("count", {"stop": 1}),
            lambda: view.call_stream(Mapped.count, 1),
        ):
            with pytest.raises(TypeError, match="takes no on_progress"):
                use()
