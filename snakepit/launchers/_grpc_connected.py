"""Workers that somebody else has started: they are connected to, and let go of, never ended.

What a ladder can do here is to hang up. The worker then stops by itself what it runs for us, as well
as it can, and waits for the next connection.
"""

from __future__ import annotations

import secrets
import signal
from collections.abc import Generator
from contextlib import contextmanager

from attrs import field, frozen

from snakepit.launchers._base import Launched, Launcher
from snakepit.options import Connect
from snakepit.process import ExitStatus, fork_generation
from snakepit.transports._grpc_dial import DialledChannel, dial

POOL_ID_BYTES = 16


@frozen
class Disconnected(ExitStatus):
    """Nothing is known of the process, and it may well live on."""

    def __str__(self) -> str:
        return "disconnected"


class ConnectedWorker(Launched):
    """A worker by its link alone."""

    pid = None
    output_tail = ""

    def __init__(self, channel: DialledChannel, address: str) -> None:
        self.channel = self._channel = channel
        self.address = address
        self._generation = fork_generation()

    @property
    def is_ours(self) -> bool:
        return self._generation == fork_generation()

    @property
    def died(self) -> str:
        why = self._channel.failure
        return f"lost its connection ({why})" if why else "closed its connection"

    @property
    def start_failure(self) -> str:
        why = self._channel.failure
        return f"cannot connect to {self.address}: {why}" if why else ""

    async def run(self) -> None:
        await self._channel.run()

    async def dump(self) -> str:
        raise RuntimeError(f"the worker at {self.address} is not this pool's to look into")

    async def wait_exit(self) -> None:
        await self._channel.ended.wait()

    def send_signal(self, number: signal.Signals) -> None:  # noqa: ARG002 - whatever it is
        self._channel.hang_up()

    def request_dump(self) -> None:
        """There is nobody to ask."""

    def kill_and_reap(self) -> ExitStatus:
        return Disconnected()


@frozen
class ConnectLauncher(Launcher):
    """The worker of each slot is at the address of that number."""

    connect: Connect
    pool: str = field(factory=lambda: secrets.token_hex(POOL_ID_BYTES))

    @contextmanager
    def launch(self, worker_id: str, slot: int) -> Generator[Launched]:  # noqa: ARG002 - it has a name
        address = self.connect.addresses[slot - 1]
        # Each slot takes the place of its own lost connection, not that of another one of the pool's.
        with dial(self.connect, address, f"{self.pool}-{slot}") as channel:
            yield ConnectedWorker(channel, str(address))
