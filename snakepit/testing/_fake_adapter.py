"""Adapters without an adapter: tools that answer as the test says, and remember their calls."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any, ClassVar

import anyio.lowlevel

from snakepit.errors import ConfigError
from snakepit.worker import Adapter, tool
from snakepit.worker._tool import MARK, mark_of
from snakepit.worker._toolbox import kind_of, marked


class FakeAdapter(Adapter):
    """What `fake_adapter` makes a subclass of.

    `calls`: the name of the tool and the arguments of each call that has begun, in any worker of any
    pool of this class.
    """

    calls: ClassVar[list[tuple[str, dict[str, Any]]]]


def fake_adapter(*, like: type | None = None, **tools: Any) -> type[FakeAdapter]:
    """Make an adapter for a pool in memory: each keyword is a tool, and what it answers.

        fake = fake_adapter(predict={"label": "snake"}, load=OSError("no disk"), double=lambda x: 2 * x)

    Args:
        like: the adapter that it stands for. Only tools of that one may be given, and they have its
            parameters and options: a call that the real one refuses is refused here.
        **tools: a function of any kind that a tool may be, to be called; an exception, to be raised;
            anything else is the answer, whatever the arguments. Of a tool of `like` that streams it
            is a list of the items.

    Raises: ConfigError: `like` has no such tool.
    """
    calls: list[tuple[str, dict[str, Any]]] = []
    originals = {} if like is None else _tools_of(like)
    members: dict[str, Any] = {"calls": calls, "__doc__": "A fake."}
    for name, answer in tools.items():
        if like is not None and name not in originals:
            raise ConfigError("like", name, f"a tool of {like.__qualname__}: {sorted(originals)}")
        streams = name in originals and _streams(originals[name])
        fake = _fake(name, _function(answer, streams=streams), calls)
        if like is not None:
            _disguise(fake, originals[name])
        elif mark_of(fake) is None:
            tool(fake)
        members[name] = staticmethod(fake)
    return type("Fake" if like is None else f"Fake{like.__name__}", (FakeAdapter,), members)


def _tools_of(adapter: type) -> dict[str, Any]:
    return {
        options.name or attribute: inspect.getattr_static(adapter, attribute)
        for attribute, options in marked(adapter).items()
    }


def _streams(original: Any) -> bool:
    return kind_of(getattr(original, "__func__", original)) in ("generator", "async generator")


def _function(answer: Any, *, streams: bool) -> Callable[..., Any]:
    is_error = isinstance(answer, BaseException) or (
        isinstance(answer, type) and issubclass(answer, BaseException)
    )
    if callable(answer) and not is_error:
        return answer  # type: ignore[no-any-return]

    async def give(**_: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        if is_error:
            raise answer
        return answer

    async def give_each(**_: Any) -> AsyncIterator[Any]:  # noqa: ASYNC900 - a worker closes it
        await anyio.lowlevel.checkpoint()
        if is_error:
            raise answer
        for item in answer:
            yield item
            await anyio.lowlevel.checkpoint()

    return give_each if streams else give


def _fake(
    name: str, function: Callable[..., Any], calls: list[tuple[str, dict[str, Any]]]
) -> Callable[..., Any]:
    """The function, of the same kind, that also notes its calls."""

    @functools.wraps(function)
    def run(*args: Any, **params: Any) -> Any:
        calls.append((name, params))
        return function(*args, **params)

    @functools.wraps(function)
    async def run_async(*args: Any, **params: Any) -> Any:
        return await run(*args, **params)

    @functools.wraps(function)
    def generate(*args: Any, **params: Any) -> Iterator[Any]:
        yield from run(*args, **params)

    @functools.wraps(function)
    async def generate_async(*args: Any, **params: Any) -> AsyncIterator[Any]:  # noqa: ASYNC900 - as above
        async with aclosing(run(*args, **params)) as items:
            async for item in items:
                yield item

    kinds: dict[str, Callable[..., Any]] = {
        "sync": run,
        "async": run_async,
        "generator": generate,
        "async generator": generate_async,
    }
    return kinds[kind_of(function)]


def _disguise(fake: Callable[..., Any], original: Any) -> None:
    """Give the fake the parameters, description and options of the tool that it stands for."""
    skipped = 0 if isinstance(original, staticmethod) else 1
    function = getattr(original, "__func__", original)
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError:  # annotations that only type checkers can resolve
        signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[skipped:]
    fake.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    del fake.__wrapped__  # type: ignore[attr-defined] # for what it says of the parameters
    fake.__doc__ = function.__doc__
    setattr(fake, MARK, mark_of(original))
