"""Functions in place of tools: `pool.run_sync` and `pool.as_executor`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from snakepit.pool._attending import finish
from snakepit.pool._executor import PoolExecutor
from snakepit.pool._functions import outcome_of, pickle_call, refuse_strangers
from snakepit.protocol import encode_params
from snakepit.worker._functions import RUN_SYNC

if TYPE_CHECKING:
    from snakepit._loops import Loop
    from snakepit.pool._core import PoolCore
    from snakepit.pool._desk import Desk

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class FunctionCalls:
    """`run_sync` and `as_executor` of a pool."""

    _core: PoolCore
    _desk: Desk
    _loop: Loop

    def _check_caller(self) -> None:
        raise NotImplementedError

    async def run_sync(self, func: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run any importable or picklable function in a worker, like `trio.to_thread.run_sync`.

        Function, arguments and value are pickled; cloudpickle helps where it is installed. Always
        a checkpoint. Cancelling stops the function as it stops a tool. Arguments by name go into a
        `functools.partial`.

        Raises: what the function raised, with its causes and the worker's traceback as a note; a
            ToolError where pickle cannot carry that, or it is no Exception. SerializationError:
            something cannot be pickled. TypeError: the function is async. PermissionError: this
            pool did not start its workers itself.
        """
        self._check_caller()
        refuse_strangers(self._core.settings)
        await self._loop.checkpoint_if_cancelled()
        self._core.refuse_if_shut()
        body, buffers = encode_params(pickle_call(func, args))
        call = self._core.submit(RUN_SYNC, body, buffers, info=None, timeout=None, attended=True)
        await finish(self._core, call)
        read = partial(outcome_of, *call.outcome())
        codec = self._core.codec
        value, error = await codec.in_thread(read) if codec.takes_long(call.result) else read()
        if error is not None:
            raise error
        returned: T = value
        return returned

    def as_executor(self) -> Executor:
        """The pool as a `concurrent.futures.Executor`, for code that wants one. From any thread.

        Functions run as by `run_sync`; what is no Exception arrives as itself, too. A future runs,
        and can no longer be cancelled, from when its call is sent to a free worker. Callbacks run on
        the pool's loop. There `result`, `map` and `shutdown` raise RuntimeError in place of a wait
        that could never end; `wait` and `as_completed` cannot tell: call them in other threads.
        `map` takes `buffersize` on every Python. Shutting the executor down leaves the pool open.

        Raises: PermissionError: as `run_sync`.
        """
        refuse_strangers(self._core.settings)
        return PoolExecutor(self._desk)
