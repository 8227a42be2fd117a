"""`snakepit.progress`: a bar beside whatever is iterated, where rich is installed.

The bar is drawn as items pass, by whoever takes them: there is no thread, and nothing to close.
It ends with the iteration, by whichever way; one that is left early is ended when it is let go.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast, overload

from snakepit.errors import ConfigError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

T = TypeVar("T")

REDRAW_S: Final = 0.1
# Not a cancellation: who cancels one wait for an item may wait for it again.
ENDINGS: Final = (Exception, KeyboardInterrupt)


@overload
def progress(
    iterator: AsyncIterable[T], *, total: float | None = None, description: str | None = None
) -> AsyncIterator[T]: ...
@overload
def progress(
    iterator: Iterable[T], *, total: float | None = None, description: str | None = None
) -> Iterator[T]: ...
def progress(
    iterator: Iterable[Any] | AsyncIterable[Any],
    *,
    total: float | None = None,
    description: str | None = None,
) -> Iterator[Any] | AsyncIterator[Any]:
    """Iterate, and show how far it is: `async for result in snakepit.progress(results)`.

    Works for the results of `pool.map`, for streams, and for any other iterable, async or not; the
    items are passed on as they are. The bar goes to stderr if that is a terminal. Without rich
    (`pip install rich`) there is none, and all else is the same.

    Args:
        iterator: what to iterate.
        total: how many items there will be; None: what the iterable tells of itself, if it does.
        description: the text before the bar.

    Raises: ConfigError: an option is wrong. TypeError: this cannot be iterated. The iteration raises
        what that of `iterator` does.
    """
    _check_total(total)
    if description is not None and not isinstance(description, str):
        raise ConfigError("description", description, "a str, or None")
    if isinstance(iterator, AsyncIterable):
        return _AsyncItems(aiter(iterator), _Bar(_total(total, iterator), description))
    if isinstance(iterator, Iterable):
        return _Items(iter(iterator), _Bar(_total(total, iterator), description))
    raise TypeError(f"progress takes something to iterate, not a {type(iterator).__qualname__}")


def _check_total(total: object) -> None:
    number = isinstance(total, int | float) and not isinstance(total, bool)
    if total is not None and not (number and 0 <= cast("float", total) < math.inf):
        raise ConfigError("total", total, "a finite number of at least 0, or None")


def _total(total: float | None, iterable: object) -> float | None:
    if total is not None:
        return total
    hint = operator.length_hint(iterable, -1)
    return None if hint < 0 else hint


class _Bar:
    """The bar, from the first item that is asked for to the end."""

    def __init__(self, total: float | None, description: str | None) -> None:
        self._total, self._description = total, description or ""
        self._shown: Progress | None = None
        self._task: TaskID | None = None
        self._begun = False
        self._done_count = 0
        self._drawn_at = 0.0

    def begin(self) -> None:
        """Show it, once."""
        if self._begun:
            return
        self._begun = True
        try:
            from rich.console import Console
            from rich.errors import LiveError
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
            )
        except ImportError:
            return
        console = Console(stderr=True)
        if not console.is_terminal:
            return
        shown = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            auto_refresh=False,
            # What is printed meanwhile goes above the bar, but must not leave a pipe or a file.
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        )
        self._task = shown.add_task(self._description, total=self._total)
        try:
            shown.start()
        except LiveError:  # a bar inside another one's iteration
            return
        self._shown = shown
        self._draw()

    def advance(self) -> None:
        """One more item."""
        self._done_count += 1
        if self._shown is not None and monotonic() >= self._drawn_at + REDRAW_S:
            self._draw()

    def end(self) -> None:
        """Leave it as it is; the terminal is the user's again."""
        shown, self._shown = self._shown, None
        if shown is not None and self._task is not None:
            shown.update(self._task, completed=self._done_count)
            shown.stop()

    def _draw(self) -> None:
        assert self._shown is not None
        assert self._task is not None
        self._shown.update(self._task, completed=self._done_count, refresh=True)
        self._drawn_at = monotonic()


class _Shown(Generic[T]):
    """What both kinds of iteration have in common."""

    def __init__(self, bar: _Bar) -> None:
        self._bar = bar

    def __del__(self) -> None:
        self._bar.end()


class _Items(_Shown[T], Iterator[T]):
    def __init__(self, items: Iterator[T], bar: _Bar) -> None:
        super().__init__(bar)
        self._items = items

    def __next__(self) -> T:
        self._bar.begin()
        try:
            item = next(self._items)
        except ENDINGS:
            self._bar.end()
            raise
        self._bar.advance()
        return item


class _AsyncItems(_Shown[T], AsyncIterator[T]):
    def __init__(self, items: AsyncIterator[T], bar: _Bar) -> None:
        super().__init__(bar)
        self._items = items

    async def __anext__(self) -> T:  # noqa: ASYNC910 - a checkpoint if that of the iterator is one
        self._bar.begin()
        try:
            item = await anext(self._items)
        except ENDINGS:
            self._bar.end()
            raise
        self._bar.advance()
        return item
