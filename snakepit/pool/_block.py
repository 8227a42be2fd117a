"""`guarded`: async context managers whose end no Ctrl+C gets past.

trio raises KeyboardInterrupt wherever a task happens to be, unless one of the frames around says
that it must not. A block begins and ends in the frames of a context manager, and those of
`contextlib` say nothing: interrupted there, as a second Ctrl+C does while the first one leaves the
block, they never resume the generator, and what it owns is never closed. trio's own nurseries are
guarded in the same way. The body of the block is the caller's and is interrupted as ever; and who
waits in here is, for that is where trio delivers what it has kept back.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import wraps
from types import TracebackType
from typing import ParamSpec, TypeVar

from trio.lowlevel import enable_ki_protection

P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)


class _GuardedBlock(AbstractAsyncContextManager[T_co]):
    # The methods themselves, without anything around them: CPython looks for signals as soon as
    # some other code begins, but not between the body of a block and a coroutine that is its end.

    def __init__(self, inner: AbstractAsyncContextManager[T_co]) -> None:
        self._inner = inner

    @enable_ki_protection
    async def __aenter__(self) -> T_co:
        return await self._inner.__aenter__()

    @enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, traceback)  # noqa: ASYNC102 - shields itself


def guarded(
    opening: Callable[P, AbstractAsyncContextManager[T_co]],
) -> Callable[P, AbstractAsyncContextManager[T_co]]:
    """Goes above `@asynccontextmanager`: on trio, whatever is interrupted, the block is left by its end."""

    @wraps(opening)
    def open_block(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[T_co]:
        return _GuardedBlock(opening(*args, **kwargs))

    return open_block
