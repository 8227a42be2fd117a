"""`@tool` marks and changes nothing; wrong options are refused where they are written."""

from __future__ import annotations

import functools
import inspect
import math

import pytest

from snakepit.errors import ConfigError
from snakepit.worker._tool import Adapter, ToolOptions, mark_of, tool


def test_bare_and_called_forms_return_the_function_itself() -> None:
    def one() -> int:
        return 1

    assert tool(one) is one
    assert tool()(one) is one
    assert tool(name="x")(one) is one
    assert mark_of(one) == ToolOptions(name="x")
    assert one() == 1


def test_options_are_kept() -> None:
    @tool(
        name="n",
        description="d",
        idempotent=True,
        timeout=3,
        on_cancel="kill",
        cancel_grace=0.5,
    )
    def one() -> None: ...

    assert mark_of(one) == ToolOptions(
        name="n", description="d", idempotent=True, timeout=3.0, on_cancel="kill", cancel_grace=0.5
    )


@pytest.mark.parametrize("descriptor", [staticmethod, classmethod])
def test_either_order_with_staticmethod_and_classmethod(descriptor: type) -> None:
    def one(*args: object) -> None: ...

    def two(*args: object) -> None: ...

    assert mark_of(tool(descriptor(one))) == ToolOptions()
    assert mark_of(descriptor(tool(two))) == ToolOptions()


def test_wrapped_partial_and_partialmethod_can_be_marked() -> None:
    @tool(name="inner")
    def one(x: int) -> int:
        return x

    @functools.wraps(one)
    def wrapper(*args: object) -> object:
        return one(*args)

    assert mark_of(wrapper) == ToolOptions(name="inner")
    assert mark_of(tool(functools.partial(one, 1))) == ToolOptions()
    assert mark_of(tool(functools.partialmethod(one, 1))) == ToolOptions()


def test_async_functions_stay_async() -> None:
    @tool
    async def one() -> None: ...

    @tool
    async def two():
        yield 1

    assert inspect.iscoroutinefunction(one)
    assert inspect.isasyncgenfunction(two)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("on_cancel", "stop"),
        ("on_cancel", None),
        ("timeout", 0),
        ("timeout", -1.0),
        ("timeout", math.nan),
        ("timeout", math.inf),
        ("timeout", True),
        ("timeout", "5"),
        ("cancel_grace", -1),
        ("cancel_grace", math.inf),
        ("name", ""),
        ("name", "  "),
        ("name", 5),
        ("description", 5),
        ("idempotent", 1),
    ],
)
def test_wrong_options_are_named(option: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        tool(**{option: value})  # type: ignore[call-overload]
    assert caught.value.option == option
    assert caught.value.value is value
    assert "give" in caught.value.allowed


@pytest.mark.parametrize(
    "thing", [5, "predict", property(lambda self: 1), int, len, [].append, object()]
)
def test_what_cannot_be_a_tool_is_a_type_error(thing: object) -> None:
    with pytest.raises(TypeError, match="@tool"):
        tool(thing)


def test_a_bound_method_cannot_be_marked() -> None:
    with pytest.raises(TypeError, match="around it"):
        tool(Adapter().initialize)


def test_the_base_has_hooks_that_do_nothing_and_takes_no_arguments() -> None:
    assert Adapter().initialize() is None
    assert Adapter().cleanup() is None
    with pytest.raises(TypeError):
        Adapter(1)  # type: ignore[call-arg]


def test_a_mark_is_found_without_asking_the_object() -> None:
    class Nosy:
        def __getattribute__(self, name: str) -> object:
            raise RuntimeError("asked")

    assert mark_of(Nosy()) is None
    assert mark_of(5) is None
    assert mark_of(Nosy) is None
