"""Sessions for blocking code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

from snakepit.pool._host_tools import HostToolCalls
from snakepit.pool._progress import OnProgress
from snakepit.pool._session import Session
from snakepit.pool._sync_typed import SyncTypedCalls

if TYPE_CHECKING:
    from snakepit.pool._sync import SyncPool


class SyncSession(SyncTypedCalls, HostToolCalls):
    """A session for blocking code; each method does what its namesake of `Session` does."""

    def __init__(self, pool: SyncPool, session: Session) -> None:
        self._pool, self._session = pool, session

    def __repr__(self) -> str:
        return f"<snakepit.SyncSession of {self._session!r}>"

    def _offer(self, func: Callable[..., Any], name: str | None, description: str | None) -> None:
        self._pool.add_host_tool(func, name=name, description=description, session=self)

    @property
    def id(self) -> str:
        """What tools see as `context().session_id`."""
        return self._session.id

    @property
    def worker_id(self) -> str | None:
        """The worker that it lives in; None before the first call."""
        return self._session.worker_id

    @property
    def metadata(self) -> dict[str, Any]:
        """A dict of the caller's own, on this side; it is never sent."""
        return self._session.metadata

    def execute(
        self,
        tool: str,
        params: Mapping[str, Any] | None = None,
        /,
        *,
        timeout: float | None = None,
        idempotent: bool | None = None,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """Run one tool in this session; see `SyncPool.execute`."""
        return self._pool.execute(
            tool,
            params,
            session=self,
            timeout=timeout,
            idempotent=idempotent,
            on_progress=on_progress,
        )

    def stream(
        self,
        tool: str,
        params: Mapping[str, Any] | None = None,
        /,
        *,
        timeout: float | None = None,
        window: int = 16,
    ) -> AbstractContextManager[Iterator[Any]]:
        """Call a streaming tool in this session; see `SyncPool.stream`."""
        return self._pool.stream(tool, params, session=self, timeout=timeout, window=window)

    def map(
        self,
        tool: str,
        iterable_of_params: Iterable[Mapping[str, Any]],
        /,
        *,
        limit: int | None = None,
        ordered: bool = True,
        on_error: Literal["cancel", "return"] = "cancel",
        timeout: float | None = None,
    ) -> AbstractContextManager[Iterator[Any]]:
        """Call one tool for each item in this session; see `SyncPool.map`."""
        return self._pool.map(
            tool,
            iterable_of_params,
            limit=limit,
            ordered=ordered,
            on_error=on_error,
            timeout=timeout,
            session=self,
        )

    def _execute(self, tool: str, params: Mapping[str, Any]) -> Any:
        return self.execute(tool, params)

    def _stream(
        self, tool: str, params: Mapping[str, Any]
    ) -> AbstractContextManager[Iterator[Any]]:
        return self.stream(tool, params)


def session_of(session: str | SyncSession | None) -> str | Session | None:
    """What the pool behind takes."""
    return session._session if isinstance(session, SyncSession) else session
