"""snakepit over each transport that has processes, and the list of all who take part.

A new transport is one more line here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import snakepit
from compare._contender import Contender, Run
from compare._peers import PEERS


class Snakepit(Contender):
    """A pool over one transport, with the options that it has by itself."""

    distribution = "snakepit-pool"
    how = "the task is cancelled"
    death = "WorkerDiedError"

    def __init__(self, transport: str) -> None:
        self.name = f"snakepit {transport}"
        self._transport = transport

    @asynccontextmanager
    async def open(self, workers: int) -> AsyncGenerator[Run]:
        async with snakepit.open_pool(
            size=workers, min_ready=workers, transport=self._transport
        ) as pool:
            yield pool.run_sync


SNAKEPITS: Final[tuple[Contender, ...]] = (
    Snakepit("stdio"),
    Snakepit("shm"),
    Snakepit("grpc"),
)
EVERYONE: Final[dict[str, Contender]] = {
    contender.name: contender for contender in (*SNAKEPITS, *PEERS)
}
