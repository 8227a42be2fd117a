"""What every contender looks like to the measurements: three calls, awaited on its own loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from attrs import frozen

from benchmarks import _work


@frozen
class Calls:
    """The work, as one contender does it in its workers.

    `pool`: the contender's own object, for measurements that need more than calls. `run`: runs a
    function in a worker; None: it has tools. `share`: puts an array where workers see it, and
    returns what `echo` takes for it; None: it cannot.
    """

    nothing: Callable[[], Awaitable[Any]]
    echo: Callable[[Any], Awaitable[Any]]
    pause: Callable[[float], Awaitable[Any]]
    pool: Any = None
    run: Callable[..., Awaitable[Any]] | None = None
    share: Callable[[Any], Any] | None = None

    @classmethod
    def through(
        cls, run: Callable[..., Awaitable[Any]], share: Callable[[Any], Any] | None = None
    ) -> Calls:
        """The calls of a contender that runs functions: `await run(func, *args)`."""
        nothing, echo, pause = (
            partial(run, func) for func in (_work.nothing, _work.echo, _work.pause)
        )
        return cls(nothing, echo, pause, run=run, share=share)


class Contender(ABC):
    """A way to run work in worker processes.

    `backend`: the event loop that its callers run on.
    """

    name: str
    backend: str = "trio"

    @abstractmethod
    def load(self) -> None:
        """Import what `open` needs, so that start-up is measured without. ImportError: not here."""

    @abstractmethod
    def open(self, workers: int) -> AbstractAsyncContextManager[Calls]:
        """Workers that take calls, for as long as the block."""
