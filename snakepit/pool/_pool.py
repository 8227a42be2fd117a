"""`Pool`: what callers hold. Every method here is thin; the state is the core's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Literal

from snakepit.errors import InvalidParamsError
from snakepit.pool._attending import finish
from snakepit.pool._block import guarded
from snakepit.pool._born import SharedMemory
from snakepit.pool._call import PendingCall
from snakepit.pool._codec import Arguments
from snakepit.pool._core import PoolCore
from snakepit.pool._desk import Desk
from snakepit.pool._function_calls import FunctionCalls
from snakepit.pool._host_tools import HostToolCalls, HostTools
from snakepit.pool._insight import Insight
from snakepit.pool._map import Results, open_map
from snakepit.pool._progress import OnProgress, check_on_progress, listen
from snakepit.pool._pumps import close_unpulled, pumps_of
from snakepit.pool._session import Session, SessionCalls, session_named
from snakepit.pool._settings import check_timeout
from snakepit.pool._stats import stats_of
from snakepit.pool._stream import Stream, check_window, open_stream
from snakepit.pool._tools import ToolSpec, as_params, find_tool
from snakepit.pool._turns import Turns
from snakepit.pool._typed import TypedCalls
from snakepit.pool._views import BoundPool
from snakepit.process import fork_generation
from snakepit.protocol import TakesLongError, ToolInfo, decode_value, encode_arguments


class Pool(TypedCalls, SessionCalls, FunctionCalls, HostToolCalls, SharedMemory, Insight):
    """A pool of worker processes. Made by `open_pool` and `run_pool`; usable while they last.

    It belongs to the event loop that opened it.
    """

    def __init__(self, core: PoolCore, desk: Desk) -> None:
        self._core = core
        self._desk = desk
        self._loop = core.loop
        self._turns = Turns()
        self._fork_generation = fork_generation()

    def __repr__(self) -> str:
        core = self._core
        stats = stats_of(core)
        state = "closed" if core.closing.is_set() else "broken" if core.broken else "open"
        return (
            f"<snakepit.Pool {core.settings.name!r} {state}: {stats.workers} of "
            f"{core.settings.size} workers ready, {stats.busy} busy, {stats.queued} calls queued>"
        )

    async def execute(
        self,
        tool: str,
        params: Mapping[str, Any] | None = None,
        /,
        *,
        session: str | Session | None = None,
        timeout: float | None = None,
        idempotent: bool | None = None,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """Run one tool on one worker and return its value. Always a checkpoint.

        Cancelling stops the tool before this returns, within `Stop.cancel_grace +
        Stop.term_grace`; the worker and what it has loaded are kept wherever the tool ends by the
        first of these. A call is sent to one worker, once; only if it is idempotent is it sent
        again after its worker died.

        Args:
            tool: the tool's name.
            params: its arguments by name. They may be changed once this has returned. One that is an async
                iterable is pulled as the tool asks for items; it is closed before this returns.
            session: the id of a session, or what `session` yielded. One that is not open is made, as
                `Sessions` says, and lasts for its `ttl` after the last use, or until `end_session`.
            timeout: seconds for the whole call, waiting included; None: the tool's own, else
                `call_timeout`.
            idempotent: may it run twice? None: as its tool declares.
            on_progress: called with (done, total, message) of what the tool tells by
                `context().progress(...)`, in this task, in order; async or not. A slow one is
                shown the latest update only; the last one is always shown before this returns.
                If it raises, or is cancelled, the tool is stopped, and the exception goes on. When
                no answer will come (time is up, worker or pool are gone) an async one is cancelled;
                once the tool has answered in time, only the caller's own scope bounds it.

        Raises:
            ToolError: the tool raised; also an instance of the builtin type that it raised.
            ToolNotFoundError, InvalidParamsError, SerializationError: the call is at fault.
            CallTimeoutError, QueueTimeoutError: time was up while it ran, or before it began.
            WorkerDiedError: the worker died, or had to be ended, during the call.
            SessionLostError, SessionBusyError, SessionNotFoundError: see `session`.
            PoolSaturatedError, PoolClosedError, PoolBrokenError: refused.
            TypeError: `on_progress` cannot be called.

        Source: the way of a call in docs/architecture.md.
        """
        self._check_caller()
        if on_progress is not None:
            check_on_progress(on_progress)
        call: PendingCall | None = None
        try:
            await self._loop.checkpoint_if_cancelled()  # a cancelled scope sends nothing
            attended = on_progress is None
            try:
                call = self._submit(
                    tool,
                    params,
                    session=session,
                    timeout=timeout,
                    idempotent=idempotent,
                    attended=attended,
                )
            except TakesLongError:
                call = await self._submit_long(
                    tool,
                    params,
                    session=session,
                    timeout=timeout,
                    idempotent=idempotent,
                    attended=attended,
                )
            if on_progress is not None:
                await listen(self._core, call, on_progress)
            await finish(self._core, call)
        finally:
            if call is None or call.pumps:
                await close_unpulled(params, call)  # noqa: ASYNC102 - cancelled if we are
        body, buffers = call.outcome()
        if buffers or self._core.codec.own:
            return await self._core.codec.value_of(body, buffers)
        return decode_value(body)

    @guarded
    @asynccontextmanager
    async def stream(
        self,
        tool: str,
        params: Mapping[str, Any] | None = None,
        /,
        *,
        session: str | Session | None = None,
        timeout: float | None = None,
        window: int = 16,
    ) -> AsyncGenerator[Stream[Any]]:
        """Call a streaming tool: `async with pool.stream(...) as chunks: async for chunk in chunks`.

        At most `window` chunks are under way unread; the tool waits with the next. However the
        block is left, the tool's generator is closed first (its `finally` runs), within
        `Stop.cancel_grace + Stop.term_grace`. Only the first chunk waits for a worker.

        Args:
            tool: the tool's name.
            params: its arguments by name.
            session: as for `execute`.
            timeout: seconds from the call's start to its end, raised where the next chunk is
                awaited, never into the body.
            window: how many chunks may be unread.

        Raises: as `execute`, where the next chunk is awaited; what is wrong with the call on entering.
        """
        self._check_caller()
        check_window(window)
        call: PendingCall | None = None
        try:
            try:
                call = self._submit(tool, params, session=session, timeout=timeout, window=window)
            except TakesLongError:
                call = await self._submit_long(
                    tool, params, session=session, timeout=timeout, window=window
                )
            async with open_stream(self._core, call) as stream:
                yield stream
        finally:
            if call is None or call.pumps:
                await close_unpulled(params, call)  # noqa: ASYNC102 - as in execute

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
        session: str | Session | None = None,
    ) -> AbstractAsyncContextManager[Results]:
        """Call one tool for each item: `async with pool.map(...) as results: async for ...`.

        The input is taken item by item, by one task of the block, as there is room; it may be
        endless. A reader that does not read slows it down. Leaving the block early, in whatever way,
        stops the calls that still run, as cancelling `execute` does, and closes the input, if it
        is a generator or has an `aclose`, before the block is left.

        Args:
            tool: the tool's name.
            iterable_of_params: the arguments of one call after the other, each as for `execute`.
            limit: how many items may be under way at most, from when they leave the input until their
                results are read; None: ten for each worker.
            ordered: results in the order of the input, else as they come.
            on_error: "cancel": the first error stops the other calls, and is raised where the next
                result is awaited once they have stopped. "return": a call's exception is given in the
                place of its result; only the input's own errors and the pool's end are raised.
            timeout: of each call. It is made when a worker is free, or has calls of less than 1 ms
                alone, so that its time is not spent behind others of this map.
            session: as for `execute`.

        Raises: as `execute`, where the next result is awaited; what the input raises there, too; what
            is wrong with the tool's name or an option (ConfigError, TypeError) on entering.
        """
        return self._map(
            tool,
            iterable_of_params,
            limit=limit,
            ordered=ordered,
            on_error=on_error,
            timeout=timeout,
            session=session,
        )

    def bind(
        self,
        *,
        timeout: float | None = None,
        session: str | Session | None = None,
        idempotent: bool | None = None,
        on_progress: OnProgress | None = None,
    ) -> BoundPool:
        """A view of this pool whose `call`, `call_stream`, `execute`, `stream` and `map` have these options.

        `on_progress` is for `call` and `execute` alone. Each option is as for `execute`.

        Raises: ConfigError, TypeError: an option is wrong.
        """
        return BoundPool(
            self,
            timeout=timeout,
            session=session,
            idempotent=idempotent,
            on_progress=on_progress,
        )

    def add_host_tool(
        self,
        func: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        session: str | Session | None = None,
    ) -> ToolSpec:
        """Let workers call this function, and return what it is known as; see `host_tool`.

        `session`: for the calls of this open session alone. Raises further: SessionNotFoundError.
        """
        self._check_caller()
        core, offers = self._core, self._core.host_tools
        core.refuse_if_shut()
        if session is not None:
            record = core.sessions.named(session_named(self, session))
            if record.host_tools is None:
                record.host_tools = HostTools()
            offers = record.host_tools
        spec = offers.add(func, name, description)
        core.may_attend = True
        return spec

    def _offer(self, func: Callable[..., Any], name: str | None, description: str | None) -> None:
        self.add_host_tool(func, name=name, description=description)

    @guarded
    @asynccontextmanager
    async def _map(
        self,
        tool: str,
        params: object,
        *,
        timeout: float | None,
        session: str | Session | None = None,
        idempotent: bool | None = None,
        **options: Any,
    ) -> AsyncGenerator[Results]:
        self._check_caller()
        self._check_call(tool, timeout=timeout, streaming=False)

        call: dict[str, Any] = {"session": session, "timeout": timeout, "idempotent": idempotent}
        start = partial(self._submit, tool, **call)
        start_long = partial(self._submit_long, tool, **call)
        async with open_map(self._core, start, start_long, params, **options) as results:
            yield results

    async def _execute(self, tool: str, params: Mapping[str, Any]) -> Any:
        return await self.execute(tool, params)

    def _stream(
        self, tool: str, params: Mapping[str, Any]
    ) -> AbstractAsyncContextManager[Stream[Any]]:
        return self.stream(tool, params)

    def _check_call(self, tool: str, *, timeout: float | None, streaming: bool) -> ToolInfo | None:
        if timeout is not None:
            check_timeout("timeout", timeout)
        if self._core.is_shut:
            self._core.refuse_if_shut()
        tools = self._core.tools
        info = tools.get(tool) if tools and type(tool) is str else None
        info = info or find_tool(tools, tool)
        if info is not None and info.streaming is not streaming:
            hint = (
                "streams; call it with stream" if info.streaming else "does not stream; use execute"
            )
            raise InvalidParamsError(tool, f"this tool {hint}(...)")
        return info

    def _submit(
        self,
        tool: str,
        params: Mapping[str, Any] | None,
        *,
        timeout: float | None,
        session: str | Session | None = None,
        idempotent: bool | None = None,
        window: int = 0,
        attended: bool = False,
        encoded: Arguments | None = None,
    ) -> PendingCall:
        """Encode the arguments and hand the call in. Raises TakesLongError if `_submit_long` has to do it."""
        place = None if session is None else session_named(self, session)
        if place is not None and encoded is None and self._turns.is_taken(place):
            raise TakesLongError
        info = self._check_call(tool, timeout=timeout, streaming=window > 0)
        given = as_params(tool, params)
        body, buffers, inputs = encoded or encode_arguments(
            given, self._core.places, self._core.codec.work_max
        )
        return self._core.submit(
            tool,
            body,
            buffers,
            info=info,
            timeout=timeout,
            idempotent=idempotent,
            window=window,
            attended=attended,
            session=place,
            pumps=pumps_of(given, inputs) if inputs else (),
        )

    async def _submit_long(
        self,
        tool: str,
        params: Mapping[str, Any] | None,
        *,
        session: str | Session | None = None,
        **options: Any,
    ) -> PendingCall:
        """Encode the arguments in a thread, and hand the call in behind earlier ones of its session."""
        async with self._turns.of(None if session is None else session_named(self, session)):
            given = as_params(tool, params)
            encoded = await self._core.codec.write(given, self._core.places)
            return self._submit(tool, params, session=session, encoded=encoded, **options)

    def _check_process(self) -> None:
        if self._fork_generation != fork_generation():
            raise RuntimeError(
                "this pool belongs to the process that opened it; a forked child must open its own"
            )

    def _check_caller(self) -> None:
        self._check_process()
        if not self._loop.is_here():
            raise RuntimeError(
                "a pool belongs to the event loop that opened it; from another thread use "
                "anyio.from_thread, or open_pool_sync, which gives scripts a pool without async"
            )
