"""`pool.bind`: the pool with options that hold for every call made through it."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Literal

from snakepit.errors import ConfigError
from snakepit.pool._map import Results
from snakepit.pool._progress import OnProgress, check_on_progress
from snakepit.pool._session import Session, session_named
from snakepit.pool._settings import check_timeout
from snakepit.pool._stream import Stream
from snakepit.pool._typed import TypedCalls

if TYPE_CHECKING:
    from snakepit.pool._pool import Pool


class BoundPool(TypedCalls):
    """A view of a pool, made by `Pool.bind`: each call through it has the options given there."""

    def __init__(
        self,
        pool: Pool,
        *,
        timeout: float | None,
        session: str | Session | None,
        idempotent: bool | None,
        on_progress: OnProgress | None,
    ) -> None:
        if session is not None:
            session_named(pool, session)
        if timeout is not None:
            check_timeout("timeout", timeout)
        if idempotent is not None and not isinstance(idempotent, bool):
            raise ConfigError("idempotent", idempotent, "True, False, or None")
        if on_progress is not None:
            check_on_progress(on_progress)
        self._pool, self._timeout, self._session = pool, timeout, session
        self._idempotent, self._on_progress = idempotent, on_progress

    def __repr__(self) -> str:
        options = {
            "timeout": self._timeout,
            "session": self._session,
            "idempotent": self._idempotent,
            "on_progress": self._on_progress,
        }
        shown = "".join(
            f" {name}={value!r}" for name, value in options.items() if value is not None
        )
        return f"<snakepit.BoundPool{shown} of {self._pool!r}>"

    async def execute(self, tool: str, params: Mapping[str, Any] | None = None, /) -> Any:
        """Run one tool; see `Pool.execute`."""
        return await self._pool.execute(
            tool,
            params,
            session=self._session,
            timeout=self._timeout,
            idempotent=self._idempotent,
            on_progress=self._on_progress,
        )

    def stream(
        self, tool: str, params: Mapping[str, Any] | None = None, /, *, window: int = 16
    ) -> AbstractAsyncContextManager[Stream[Any]]:
        """Call a streaming tool; see `Pool.stream`. A stream is sent once, idempotent or not.

        Raises: TypeError: the view has an `on_progress`, which streams have not.
        """
        self._refuse_on_progress("stream")
        return self._pool.stream(
            tool, params, session=self._session, timeout=self._timeout, window=window
        )

    def map(
        self,
        tool: str,
        iterable_of_params: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
        /,
        *,
        limit: int | None = None,
        ordered: bool = True,
        on_error: Literal["cancel", "return"] = "cancel",
    ) -> AbstractAsyncContextManager[Results]:
        """Call one tool for each item; see `Pool.map`.

        Raises: TypeError: the view has an `on_progress`, which map has not.
        """
        self._refuse_on_progress("map")
        return self._pool._map(
            tool,
            iterable_of_params,
            limit=limit,
            ordered=ordered,
            on_error=on_error,
            timeout=self._timeout,
            session=self._session,
            idempotent=self._idempotent,
        )

    async def _execute(self, tool: str, params: Mapping[str, Any]) -> Any:
        return await self.execute(tool, params)

    def _stream(
        self, tool: str, params: Mapping[str, Any]
    ) -> AbstractAsyncContextManager[Stream[Any]]:
        return self.stream(tool, params)

    def _refuse_on_progress(self, method: str) -> None:
        if self._on_progress is not None:
            raise TypeError(f"{method} takes no on_progress: bind without it for this")
