"""What a check is: one promise, tried on a fresh link, that fails with one sentence.

A check runs on trio and on asyncio, needs no test framework, and ends within `CHECK_S_MAX`. It
does not use the `assert` statement, which `python -O` takes out.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator
from functools import wraps
from typing import Any, Final, TypeAlias, TypeVar

import anyio
import anyio.lowlevel

CHECK_S_MAX: Final = 30.0  # a few seconds' work on a slow machine; longer is a task that hangs

P = TypeVar("P")
Check: TypeAlias = Callable[[P], Coroutine[Any, Any, None]]


def joins(checks: list[Check[P]]) -> Callable[[Check[P]], Check[P]]:
    """Decorate a check to stand in the list, be bounded, and raise nothing but AssertionError."""

    def join(body: Check[P]) -> Check[P]:
        @wraps(body)
        async def check(open_pair: P) -> None:
            try:
                with anyio.move_on_after(CHECK_S_MAX):
                    await body(open_pair)
                    return
                raise AssertionError(
                    f"it hangs: after {CHECK_S_MAX:g} s something still waits that should not"
                )
            except Exception as error:
                failure = _failure(error)
                failure.add_note(f"{body.__name__}: {promise(body)}")
                if failure is error:
                    raise
                raise failure from error

        checks.append(check)
        return check

    return join


def promise(check: Check[Any]) -> str:
    """The first sentence of its docstring: what a transport promises if it passes."""
    assert check.__doc__, "every check says what it checks"
    return check.__doc__.partition("\n\n")[0].strip().replace("\n    ", " ")


async def run_checks(open_pair: P, checks: Iterable[Check[P]]) -> None:
    """Run all of them, one after the other, for those who test without pytest.

    Raises ExceptionGroup: the failures, each an AssertionError whose note names its check.
    """
    await anyio.lowlevel.checkpoint()
    failures: list[AssertionError] = []
    for check in checks:
        try:
            await check(open_pair)
        except AssertionError as failure:
            failures.append(failure)
    if failures:
        raise ExceptionGroup("the transport breaks promises", failures)


def _failure(error: Exception) -> AssertionError:
    """The one thing to tell, taken out of the groups of all the nurseries around it."""
    leaves = list(_leaves(error))
    for leaf in leaves:
        if isinstance(leaf, AssertionError):
            return leaf
    told = "; ".join(f"{type(leaf).__name__}: {leaf}" for leaf in leaves)
    return AssertionError(f"an error came where none was due: {told}")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
