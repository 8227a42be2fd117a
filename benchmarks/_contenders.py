"""snakepit over each of its transports, and the list of all who take part.

A new transport is one more line here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import Any, Final

import snakepit
from benchmarks._array_peers import ARRAY_PEERS
from benchmarks._contender import Calls, Contender
from benchmarks._floor import Floor
from benchmarks._grpc_peers import GRPC_PEERS
from benchmarks._peers import PEERS

ADAPTER: Final = "benchmarks._adapter:Work"
SHARED: Final = "snakepit shm"
GRPC: Final = "snakepit grpc"
DEFAULT: Final = "snakepit stdio"  # the gates judge this one


class Snakepit(Contender):
    """A pool over one transport. `pipelining`: are calls sent ahead to busy workers?"""

    def __init__(
        self, name: str, transport: str, *, backend: str = "trio", pipelining: bool = True
    ) -> None:
        self.name = name
        self.backend = backend
        self._transport = transport
        self._pipelining = pipelining

    def load(self) -> None:
        snakepit.open_pool  # noqa: B018 - the face is lazy

    @asynccontextmanager
    async def open(self, workers: int) -> AsyncGenerator[Calls]:
        options: dict[str, Any] = {}
        if workers > 16:  # all at once; by default they come in batches
            options["startup"] = snakepit.Startup(batch_size=workers)
        async with snakepit.open_pool(
            ADAPTER, size=workers, transport=self._transport, **options
        ) as pool:
            if not self._pipelining:
                # There is no such option: whoever calls has no reason to want it off. The switch
                # is the scheduler's own; no call was made yet.
                pool._core.scheduler._prefetch = False
            execute = pool.execute
            yield Calls(
                nothing=partial(execute, "nothing"),
                echo=lambda value: execute("echo", {"value": value}),
                pause=lambda seconds: execute("pause", {"seconds": seconds}),
                pool=pool,
                share=partial(_share, pool),
            )


def _share(pool: Any, array: Any) -> Any:
    shared = pool.empty(array.shape, array.dtype)
    shared[:] = array
    return shared


class RunSync(Snakepit):
    """`Pool.run_sync`: functions instead of tools, pickled as the peers do it."""

    @asynccontextmanager
    async def open(self, workers: int) -> AsyncGenerator[Calls]:
        async with super().open(workers) as calls:
            yield Calls.through(calls.pool.run_sync)


class TrioAlone(Contender):
    """The floor with a trio loop on the host's side: no call at all, only its bytes."""

    name = "floor on trio"

    def load(self) -> None:
        """It is loaded."""

    @asynccontextmanager
    async def open(self, workers: int) -> AsyncGenerator[Calls]:
        del workers  # one process answers, whatever was asked for
        with closing(Floor()) as floor:
            yield Calls(
                nothing=floor.round_trip_on_trio,
                echo=lambda _: floor.round_trip_on_trio(),
                pause=lambda _: floor.round_trip_on_trio(),
            )


SNAKEPITS: Final[tuple[Contender, ...]] = (
    Snakepit(DEFAULT, "stdio"),
    Snakepit("snakepit memory", "memory"),
    Snakepit(SHARED, "shm"),
    Snakepit(GRPC, "grpc"),
)
NOT_PIPELINED: Final = Snakepit("snakepit, no pipelining", "stdio", pipelining=False)
GRPC_ON_ASYNCIO: Final = Snakepit("snakepit grpc on asyncio", "grpc", backend="asyncio")
ON_ASYNCIO: Final = Snakepit("snakepit on asyncio", "stdio", backend="asyncio")
TRIO_ALONE: Final = TrioAlone()
RUN_SYNC: Final = RunSync("snakepit run_sync", "stdio")

EVERYONE: Final[dict[str, Contender]] = {
    contender.name: contender
    for contender in (
        *(*SNAKEPITS, NOT_PIPELINED, ON_ASYNCIO, GRPC_ON_ASYNCIO, RUN_SYNC, TRIO_ALONE),
        *(*PEERS, *ARRAY_PEERS, *GRPC_PEERS),
    )
}
