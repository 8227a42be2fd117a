"""`pool.session`: what callers hold of a session, and how it is ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, cast
from uuid import uuid4

import anyio
import anyio.lowlevel
from trio.lowlevel import enable_ki_protection

from snakepit.errors import ConfigError
from snakepit.options import AFFINITIES, DURATION, Affinity, duration_s, is_duration
from snakepit.pool._block import guarded
from snakepit.pool._host_tools import HostToolCalls
from snakepit.pool._sessions import SESSION_ID_CHARS_MAX, SessionRecord
from snakepit.pool._settings import is_utf8
from snakepit.pool._typed import TypedCalls
from snakepit.process import shielded

if TYPE_CHECKING:
    from snakepit.pool._call import PendingCall
    from snakepit.pool._core import PoolCore
    from snakepit.pool._map import Results
    from snakepit.pool._pool import Pool
    from snakepit.pool._progress import OnProgress
    from snakepit.pool._stream import Stream


class Session(TypedCalls, HostToolCalls):
    """A session that a block holds: calls that find in the worker what those before them left there.

    `async with pool.session("user_42") as session: await session.execute(...)`; see `Pool.session`.
    """

    def __init__(self, pool: Pool, record: SessionRecord) -> None:
        self._pool, self._record = pool, record

    def __repr__(self) -> str:
        where = self.worker_id or "no worker yet"
        return f"<snakepit.Session {self.id!r} {self._record.affinity}: {where}>"

    @property
    def id(self) -> str:
        """What tools see as `context().session_id`."""
        return self._record.id

    @property
    def worker_id(self) -> str | None:
        """The worker that it lives in, or that it was lost with; None before the first call."""
        record = self._record
        return record.lost_with if record.seat is None else record.seat.name

    @property
    def metadata(self) -> dict[str, Any]:
        """A dict of the caller's own, on this side; it is never sent."""
        return self._record.metadata

    def _offer(self, func: Callable[..., Any], name: str | None, description: str | None) -> None:
        self._pool.add_host_tool(func, name=name, description=description, session=self)

    async def execute(
        self,
        tool: str,
        params: Mapping[str, Any] | None = None,
        /,
        *,
        timeout: float | None = None,
        idempotent: bool | None = None,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """Run one tool in this session; see `Pool.execute`."""
        return await self._pool.execute(
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
    ) -> AbstractAsyncContextManager[Stream[Any]]:
        """Call a streaming tool in this session; see `Pool.stream`."""
        return self._pool.stream(tool, params, session=self, timeout=timeout, window=window)

    def map(
        self,
        tool: str,
        iterable_of_params: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
        /,
        *,
        limit: int | None = None,
        ordered: bool = True,
        on_error: Literal["cancel", "return"] = "cancel",
        timeout: float | None = None,
    ) -> AbstractAsyncContextManager[Results]:
        """Call one tool for each item in this session; see `Pool.map`."""
        return self._pool.map(
            tool,
            iterable_of_params,
            limit=limit,
            ordered=ordered,
            on_error=on_error,
            timeout=timeout,
            session=self,
        )

    async def _execute(self, tool: str, params: Mapping[str, Any]) -> Any:
        return await self.execute(tool, params)

    def _stream(
        self, tool: str, params: Mapping[str, Any]
    ) -> AbstractAsyncContextManager[Stream[Any]]:
        return self.stream(tool, params)


class SessionCalls(ABC):
    """The half of a pool's face that opens sessions, and ends them."""

    _core: PoolCore

    @abstractmethod
    def _check_caller(self) -> None:
        """Raise RuntimeError if the pool cannot be used from here."""

    @guarded
    @asynccontextmanager
    async def session(
        self,
        session_id: str | None = None,
        *,
        affinity: Affinity = "strict_queue",
        ttl: float | timedelta | None = None,
    ) -> AsyncGenerator[Session]:
        """Open a session: `async with pool.session("user_42") as session`.

        Its tools find in `context().session` what the calls before them left there. Entering does
        not wait for a worker: the first call gets one, the idle one with the fewest sessions. Strict
        sessions stay there: when that worker dies its call raises WorkerDiedError, and all later
        ones SessionLostError. Leaving the block stops the calls that other tasks still run in the
        session (they raise SessionNotFoundError) and drops its state; the worker lives on.

        Args:
            session_id: what tools see as `context().session_id`; None: one that nobody else has.
            affinity: "strict_queue": calls wait for the session's worker, and run in the order in
                which they were made; "strict_fail_fast": they raise SessionBusyError if it does not
                idle; "hint": they run elsewhere, and the session moves there, without its state.
            ttl: the session ends when nobody has used it for so long, seconds or `timedelta`; its
                later calls raise SessionNotFoundError. None: it ends with the block.

        Raises: SessionBusyError: this id is open. PoolSaturatedError: `Sessions.max` are open.
            PoolClosedError, PoolBrokenError: refused.
        """
        self._check_caller()
        self._core.refuse_if_shut()
        record = open_session(self._core, session_id, affinity, ttl)
        try:
            yield Session(cast("Pool", self), record)
        finally:
            await end_session(self._core, record, "was ended with its block")  # noqa: ASYNC102 - it holds on

    async def end_session(self, session_id: str) -> None:
        """End a session that `execute(session=...)` has made. Always a checkpoint.

        Calls that still run in it are stopped first, and raise SessionNotFoundError. Ending one that was
        lost makes its id free at once.

        Raises: SessionNotFoundError: it is not open. SessionBusyError: a block holds it.
        """
        self._check_caller()
        check_session_id(session_id)
        await anyio.lowlevel.checkpoint()
        record = self._core.sessions.find_to_end(session_id)
        if record is not None:
            await end_session(self._core, record, "was ended")


def open_session(
    core: PoolCore, session_id: str | None, affinity: str, ttl: float | timedelta | None
) -> SessionRecord:
    """Check the arguments and open the session."""
    if affinity not in AFFINITIES:
        raise ConfigError("affinity", affinity, " or ".join(map(repr, AFFINITIES)))
    if ttl is not None and not is_duration(ttl):
        raise ConfigError("ttl", ttl, DURATION)
    if session_id is None:
        session_id = uuid4().hex
    check_session_id(session_id)
    return core.sessions.open(session_id, affinity, duration_s(ttl))


def session_named(pool: Pool, session: str | Session) -> str | SessionRecord:
    """The id, or what is known of the session. Raises ConfigError."""
    if isinstance(session, Session):
        if session._pool is not pool:
            raise ConfigError("session", session, "a session of this pool")
        return session._record
    check_session_id(session)
    return session


def check_session_id(session_id: object) -> None:
    """Raise ConfigError if no session can have this id."""
    if (
        not isinstance(session_id, str)
        or not 1 <= len(session_id) <= SESSION_ID_CHARS_MAX
        or not is_utf8(session_id)
    ):
        raise ConfigError(
            "session", session_id, f"text of 1 to {SESSION_ID_CHARS_MAX} characters, valid UTF-8"
        )


async def end_session(core: PoolCore, record: SessionRecord, why: str) -> None:  # noqa: ASYNC910 - as stopping takes
    """Stop what still runs in the session, then end it; to its end, whatever cancels us."""
    calls = _stop(core, record, why)
    try:
        if calls:
            await shielded(lambda: _settled(calls))
    finally:
        core.sessions.end(record)


@enable_ki_protection
def _stop(core: PoolCore, record: SessionRecord, why: str) -> list[PendingCall]:
    """Take no more calls in this session and stop those that it has; returns these."""
    record.over = why
    calls = list(record.calls.values())
    for call in calls:
        core.give_up(call, record.over_error())
    return calls


async def _settled(calls: list[PendingCall]) -> None:  # noqa: ASYNC910 - at once if they have
    for call in calls:
        while not call.settled:
            await call.changed()
