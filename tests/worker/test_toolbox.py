"""Tools are found by their marks, along the MRO, without running any user code."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from snakepit.errors import ConfigError, InvalidParamsError, ToolNotFoundError
from snakepit.worker._tool import Adapter, ToolOptions, tool
from snakepit.worker._toolbox import Tool, collect, find, has_tools, is_coroutine_function, kind_of


class Everything(Adapter):
    """All the forms in one class."""

    secret = 7

    @tool
    def plain(self, x: int) -> int:
        """Add the secret.

        This is no longer the first paragraph.
        """
        return x + self.secret

    @tool
    @staticmethod
    def static_inside(x: int) -> int:
        return x

    @staticmethod
    @tool
    def static_outside(x: int) -> int:
        return x

    @tool
    @classmethod
    def class_inside(cls, x: int) -> str:
        return cls.__name__

    @classmethod
    @tool
    def class_outside(cls, x: int) -> str:
        return cls.__name__

    @tool(name="renamed", description="given", idempotent=True, timeout=2, cancel_grace=1)
    def original(self) -> None:
        """Not shown."""

    @tool
    async def later(self) -> None:
        """Described over
        two lines."""

    @tool
    def stream(self, n: int):
        yield from range(n)

    @tool
    async def async_stream(self):
        yield 1

    def unmarked(self) -> None: ...

    half = tool(functools.partialmethod(plain, 5))


def test_every_form_is_found_and_bound() -> None:
    tools = collect(Everything())
    assert list(tools) == [
        "plain",
        "static_inside",
        "static_outside",
        "class_inside",
        "class_outside",
        "renamed",
        "later",
        "stream",
        "async_stream",
        "half",
    ]
    assert tools["plain"].call(x=1) == 8
    assert tools["static_inside"].call(x=1) == tools["static_outside"].call(x=1) == 1
    assert tools["class_inside"].call(x=1) == tools["class_outside"].call(x=1) == "Everything"
    assert list(tools["stream"].call(n=2)) == [0, 1]
    assert tools["half"].call(**tools["half"].bind({})) == 12


def test_kinds() -> None:
    tools = collect(Everything())
    kinds = {name: one.kind for name, one in tools.items() if one.kind != "sync"}
    assert kinds == {"later": "async", "stream": "generator", "async_stream": "async generator"}
    assert [one.name for one in tools.values() if one.is_async] == ["later", "async_stream"]
    assert [one.name for one in tools.values() if one.streaming] == ["stream", "async_stream"]


def test_info_is_what_the_host_needs() -> None:
    tools = collect(Everything())
    info = tools["renamed"].info()
    assert (info.name, info.description, info.idempotent) == ("renamed", "given", True)
    assert (info.timeout_s, info.cancel_grace_s, info.on_cancel) == (2.0, 1.0, "interrupt")
    assert tools["plain"].info().description == "Add the secret."
    assert tools["later"].info().description == "Described over two lines."
    assert tools["static_inside"].info().description == ""
    assert tools["plain"].info().parameters["properties"] == {"x": {"type": "integer"}}
    assert tools["stream"].info().streaming


def test_self_is_no_argument() -> None:
    for name in ("plain", "class_outside", "static_inside"):
        with pytest.raises(InvalidParamsError, match="it takes x: int"):
            collect(Everything())[name].bind({"self": 1, "x": 1})


class Base:
    @tool(name="said", idempotent=True)
    def one(self) -> str:
        return "base"

    @tool
    def two(self) -> str:
        return "base"

    @tool
    def three(self) -> str:
        return "base"


class Child(Base):
    def one(self) -> str:
        return "child"

    @tool(idempotent=True)
    def two(self) -> str:
        return "child"

    three = None  # type: ignore[assignment]


def test_an_override_is_still_a_tool_with_the_nearest_options() -> None:
    tools = collect(Child())
    assert list(tools) == ["said", "two"]
    assert tools["said"].call() == "child"
    assert tools["said"].options.idempotent
    assert tools["two"].options == ToolOptions(idempotent=True)


def test_an_override_may_change_its_kind() -> None:
    class Streams(Base):
        def two(self):
            yield 1

    assert collect(Streams())["two"].kind == "generator"


def test_an_adapter_without_our_base_and_a_mixin_work() -> None:
    class Both(Child, Everything):
        pass

    assert {"said", "plain"} <= set(collect(Both()))


def test_what_init_puts_over_a_method_is_what_runs() -> None:
    class Cached(Base):
        def __init__(self) -> None:
            self.two = lambda: "cached"  # type: ignore[method-assign]

    assert collect(Cached())["two"].call() == "cached"


class Hostile:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"asked for {name}")

    @property
    def broken(self) -> None:
        raise RuntimeError("property ran")

    @tool
    def fine(self) -> int:
        return 1


def test_properties_and_getattr_are_not_run() -> None:
    assert collect(Hostile())["fine"].call() == 1


def test_a_getattribute_that_raises_does_not_stop_collection() -> None:
    class Worse(Hostile):
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError(name)

    assert collect(Worse())["fine"].call() == 1


def test_slots_and_metaclasses_are_no_hindrance() -> None:
    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            if name == "fine":
                raise RuntimeError(name)
            return super().__getattribute__(name)

    class Slotted(metaclass=Meta):
        __slots__ = ("x",)

        @tool
        def fine(self) -> int:
            return 1

    assert collect(Slotted())["fine"].call() == 1


def test_two_tools_of_one_name_are_refused_by_name() -> None:
    class Twice:
        @tool(name="same")
        def one(self) -> None: ...

        @tool(name="same")
        def two(self) -> None: ...

    with pytest.raises(ConfigError, match="'one' and 'two'") as caught:
        collect(Twice())
    assert caught.value.value == "same"


def test_an_alias_is_a_second_name_unless_the_name_was_given() -> None:
    class Alias:
        @tool
        def one(self) -> None: ...

        @tool(name="fixed")
        def two(self) -> None: ...

        other = one
        again = two

    assert list(collect(Alias())) == ["one", "fixed", "other"]


def test_a_module_offers_its_marked_functions() -> None:
    module = types.ModuleType("some_module")
    source = """
from snakepit.worker._tool import Adapter, tool

@tool
def double(x: int) -> int:
    "Twice."
    return 2 * x

@tool
async def later(): ...

def hidden(): ...

class Other(Adapter):
    @tool
    def not_mine(self): ...
"""
    exec(source, module.__dict__)
    tools = collect(module)
    assert list(tools) == ["double", "later"]
    assert tools["double"].call(**tools["double"].bind({"x": 4})) == 8
    assert tools["double"].description == "Twice."
    assert not has_tools(types.ModuleType("empty"))


def test_find_names_what_comes_near() -> None:
    tools = collect(Everything())
    assert find(tools, "plain") is tools["plain"]
    with pytest.raises(ToolNotFoundError) as caught:
        find(tools, "plainn")
    assert caught.value.near[0] == "plain"
    with pytest.raises(ToolNotFoundError) as caught:
        find({}, "x")
    assert caught.value.near == ()


def test_a_tool_can_be_made_by_hand() -> None:
    made = Tool("n", lambda a: a, ToolOptions())
    assert made.call(**made.bind({"a": 1})) == 1
    assert "'n'" in repr(made)


def wrapped(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return func(*args, **kwargs)

    return wrapper


async def coroutine() -> None: ...


class AsyncCallable:
    async def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (len, "sync"),
        (coroutine, "async"),
        (functools.partial(coroutine), "async"),
        (AsyncCallable(), "async"),
        (AsyncCallable, "sync"),
        (wrapped(coroutine), "sync"),
        (Everything().half, "sync"),
        (functools.partial(Everything().stream, 1), "generator"),
    ],
)
def test_kind_of_callables(call: Any, kind: str) -> None:
    assert kind_of(call) == kind
    assert is_coroutine_function(call) == (kind == "async")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs CPython 3.12 or newer")
def test_functions_marked_by_inspect_are_async() -> None:
    assert kind_of(inspect.markcoroutinefunction(wrapped(coroutine))) == "async"
