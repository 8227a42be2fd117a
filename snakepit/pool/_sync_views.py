"""`bind` for blocking code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

from snakepit.pool._inputs import open_input_in_threads
from snakepit.pool._progress import OnProgress
from snakepit.pool._sync_session import SyncSession, session_of
from snakepit.pool._sync_typed import SyncTypedCalls
from snakepit.pool._views import BoundPool

if TYPE_CHECKING:
    from snakepit.pool._sync import SyncPool


class SyncBoundPool(SyncTypedCalls):
    """A view of a blocking pool, made by `SyncPool.bind`: each call through it has the options given there."""

    def __init__(
        self,
        pool: SyncPool,
        *,
        timeout: float | None,
        session: str | SyncSession | None,
        idempotent: bool | None,
        on_progress: OnProgress | None,
    ) -> None:
        self._pool, self._session = pool, session
        self._bound = BoundPool(
            pool._pool,
            timeout=timeout,
            session=session_of(session),
            idempotent=idempotent,
            on_progress=on_progress,
        )

    def __repr__(self) -> str:
        return f"<snakepit.SyncBoundPool of {self._bound!r}>"

    def execute(self, tool: str, params: Mapping[str, Any] | None = None, /) -> Any:
        """Run one tool; see `SyncPool.execute`."""
        bound = self._bound
        return self._pool.execute(
            tool,
            params,
            session=self._session,
            timeout=bound._timeout,
            idempotent=bound._idempotent,
            on_progress=bound._on_progress,
        )

    def stream(
        self, tool: str, params: Mapping[str, Any] | None = None, /, *, window: int = 16
    ) -> AbstractContextManager[Iterator[Any]]:
        """Call a streaming tool; see `SyncPool.stream`.

        Raises: TypeError: the view has an `on_progress`, which streams have not.
        """
        return self._pool._each_of(lambda: self._bound.stream(tool, params, window=window))

    def map(
        self,
        tool: str,
        iterable_of_params: Iterable[Mapping[str, Any]],
        /,
        *,
        limit: int | None = None,
        ordered: bool = True,
        on_error: Literal["cancel", "return"] = "cancel",
    ) -> AbstractContextManager[Iterator[Any]]:
        """Call one tool for each item; see `SyncPool.map`.

        Raises: TypeError: the view has an `on_progress`, which map has not.
        """
        return self._pool._each_of(
            lambda: self._bound.map(
                tool,
                open_input_in_threads(iterable_of_params),
                limit=limit,
                ordered=ordered,
                on_error=on_error,
            )
        )

    def _execute(self, tool: str, params: Mapping[str, Any]) -> Any:
        return self.execute(tool, params)

    def _stream(
        self, tool: str, params: Mapping[str, Any]
    ) -> AbstractContextManager[Iterator[Any]]:
        return self.stream(tool, params)
