"""Opening and closing a pool: `open_pool`, `run_pool`.

The slots and the deadline watcher live in a nursery of the pool's own, shielded from whatever
cancels the block: they end because the pool closes, not because somebody is in a hurry. So
workers are there for the block's own clean-up, and each is stopped by its slot's task on a
bounded ladder.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import anyio
from anyio.abc import TaskStatus
from trio.lowlevel import enable_ki_protection

from snakepit.options import (
    DEFAULT_CRASH_BARRIER,
    DEFAULT_QUEUE,
    DEFAULT_SESSIONS,
    DEFAULT_STARTUP,
    DEFAULT_STOP,
    DEFAULT_ZERO_COPY,
    Connect,
    CrashBarrier,
    Queue,
    Sessions,
    Startup,
    Stop,
    ZeroCopy,
)
from snakepit.pool._attending import Nursery
from snakepit.pool._block import guarded
from snakepit.pool._core import PoolCore
from snakepit.pool._desk import Desk
from snakepit.pool._groups import raise_lone
from snakepit.pool._pool import Pool
from snakepit.pool._settings import Settings, make_settings
from snakepit.pool._slot import Slot, raise_start_error
from snakepit.transports import Transport
from snakepit.worker import _target


@guarded
@asynccontextmanager
async def open_pool(
    adapter: str | type | ModuleType | None = None,
    /,
    *,
    command: Sequence[str] | None = None,
    connect: Connect | Sequence[str] | None = None,
    size: int | None = None,
    name: str = "default",
    min_ready: int = 1,
    transport: str | Transport = "auto",
    python: str | os.PathLike[str] | None = None,
    adapter_args: Sequence[Any] = (),
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    tool_backend: str = "asyncio",
    startup: Startup = DEFAULT_STARTUP,
    queue: Queue = DEFAULT_QUEUE,
    call_timeout: float | None = None,
    stop: Stop = DEFAULT_STOP,
    sessions: Sessions = DEFAULT_SESSIONS,
    crash_barrier: CrashBarrier = DEFAULT_CRASH_BARRIER,
    zero_copy: ZeroCopy = DEFAULT_ZERO_COPY,
    sweep: bool = True,
) -> AsyncGenerator[Pool]:
    """Open a pool of worker processes; all of them, and what they started, are gone when it is left.

    Entering waits for `min_ready` workers. Leaving, in whatever way, stops the calls that still
    run in other tasks (they raise PoolClosedError), lets the workers clean up, and ends what does
    not end by itself: within `cancel_grace + term_grace + drain_timeout + 1` seconds.

    Args:
        adapter: what the workers run: `"pkg.module:Class"`, `"pkg.module"`, `"path/to/file.py:Class"`,
            or a class or module; None: the pool serves `run_sync` alone.
        command: argv of a foreign worker that speaks the stdio protocol, instead of an adapter.
        connect: addresses of workers that somebody else has started, `"unix:/path"` or `"tcp:HOST:PORT"`, or
            a `Connect` where they want a token or TLS. They are never ended: leaving disconnects, and a call
            that does not stop within `cancel_grace + term_grace` raises WorkerDiedError with the reason
            "unresponsive". A connection that is lost, or cannot be made, is tried again for ever.
        size: number of workers; None: the CPUs that this process may use, or one for each address.
        name: names the pool in errors, logs and worker ids.
        min_ready: workers that must be ready before the block is entered.
        transport: "shm" (large values in shared memory), "stdio", "grpc" (needs the extra), "memory" (no
            processes: for tests), or a Transport; "auto": "shm" where memory can be shared, else "stdio".
        python: interpreter of the workers; None: `$SNAKEPIT_PYTHON`, else the running one.
        adapter_args: arguments for the adapter's constructor.
        env: added to the workers' environment. `OMP_`, `MKL_`, `OPENBLAS_` and
            `NUMEXPR_NUM_THREADS` default to CPUs // size.
        cwd: the workers' working directory.
        tool_backend: event loop of async tools, "asyncio" or "trio"; in memory it is the pool's own.
        startup: how workers are started; see `Startup`.
        queue: how long, and with how many, a call may wait; see `Queue`.
        stop: the bounds of the stop ladder; see `Stop`.
        sessions: how many there may be, and of what kind those on demand are; see `Sessions`.
        crash_barrier: what follows on a worker's death; see `CrashBarrier`.
        zero_copy: how much memory transport "shm" may share, and for what; see `ZeroCopy`.
        call_timeout: default `timeout` of calls, in seconds.
        sweep: end the orphans of hosts that are gone, in the background; see `cleanup`.

    Raises: ConfigError: an option is wrong, nothing was started. WorkerStartError: a worker could
        not start before `min_ready` were ready; the others have been stopped.

    Source: ownership in docs/architecture.md.
    """
    if _target.importing_main:
        raise RuntimeError(
            "a worker imports this script to find its adapter, and the script opens a pool while "
            'it is imported; put what starts it under `if __name__ == "__main__":`'
        )
    settings = make_settings(
        adapter,
        command=command,
        connect=connect,
        size=size,
        name=name,
        min_ready=min_ready,
        transport=transport,
        python=python,
        adapter_args=adapter_args,
        env=env,
        cwd=cwd,
        tool_backend=tool_backend,
        startup=startup,
        queue=queue,
        call_timeout=call_timeout,
        stop=stop,
        sessions=sessions,
        crash_barrier=crash_barrier,
        zero_copy=zero_copy,
        sweep=sweep,
    )
    core = PoolCore(settings)
    core.slots = [Slot(core, number) for number in range(1, settings.size + 1)]
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_run_slots, core, settings, desk := Desk(core))
            try:
                await _min_ready(core)
                yield Pool(core, desk)
            finally:
                core.close()
    except BaseExceptionGroup as group:
        raise_lone(group)
    finally:
        if settings.shm is not None:
            settings.shm.close()


@enable_ki_protection
async def run_pool(
    adapter: str | type | ModuleType | None = None,
    /,
    *,
    task_status: TaskStatus[Pool] = anyio.TASK_STATUS_IGNORED,
    **options: Any,
) -> None:
    """`open_pool` for `await nursery.start(run_pool, ...)`: hands the pool over when it is ready.

    Takes the arguments of `open_pool`. Lives until cancelled, then closes the pool as leaving the
    block does.
    """
    async with open_pool(adapter, **options) as pool:
        task_status.started(pool)
        await anyio.sleep_forever()


@enable_ki_protection
async def _run_slots(core: PoolCore, settings: Settings, desk: Desk) -> None:
    """Everything that runs for the pool; ends once all slots have."""
    startup = settings.startup
    with anyio.CancelScope(shield=True):
        async with anyio.create_task_group() as service:
            core.nursery = Nursery(service)
            service.start_soon(core.deadlines.watch, name=f"{settings.name}: deadlines")
            settings.launcher.begin(service)
            service.start_soon(desk.serve, name=f"{settings.name}: futures")
            async with anyio.create_task_group() as slots:
                for number, slot in enumerate(core.slots):
                    delay = number // startup.batch_size * startup.batch_delay
                    slots.start_soon(slot.run, delay, name=f"{settings.name}: slot {number + 1}")
            service.cancel_scope.cancel()


async def _min_ready(core: PoolCore) -> None:  # noqa: ASYNC910 - at once if none is wanted
    settings = core.settings
    while sum(slot.is_ready for slot in core.slots) < settings.min_ready:
        hopeful = sum(slot.start_error is None for slot in core.slots)
        if not settings.connects or hopeful < settings.min_ready:
            raise_start_error(core)
        await core.progress.wait()
