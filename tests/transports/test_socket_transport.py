"""The transport of `docs/transports.md`, under a real pool. Its promises: `test_conformance.py`."""

from __future__ import annotations

import os

import anyio
import pytest

import snakepit
from examples.adapters.words import Words
from examples.transports.socket_transport import SocketTransport


async def test_a_pool_works_over_a_transport_of_ones_own() -> None:
    """Calls, streams, values larger than the socket's buffer both ways, and a tool that is stopped."""
    with anyio.fail_after(20):
        async with snakepit.open_pool(Words, size=2, transport=SocketTransport()) as pool:
            await pool.ready()
            assert await pool.execute("count", {"text": "the tail of a snake"}) == 2
            async with pool.stream("spell", {"word": "snake"}) as letters:
                assert [letter async for letter in letters] == list("snake")
            text = "word " * 10**6
            assert await pool.execute("count", {"text": text}) == 10**6
            assert await pool.run_sync(bytes, 5 * 2**20) == bytes(5 * 2**20)
            before = {worker.pid for worker in pool.workers()}
            with pytest.raises(snakepit.CallTimeoutError):
                await pool.execute("ponder", {"seconds": 60}, timeout=0.1)
            assert {worker.pid for worker in pool.workers()} == before


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # from 3.12 on
def test_a_forked_child_of_the_host_holds_no_end_of_the_link() -> None:
    """Else its worker would not notice that the host is gone."""
    with SocketTransport().open_link() as link:
        pid = os.fork()
        if pid == 0:
            try:
                os.fstat(link.stdin)
            except OSError:
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        os.fstat(link.stdin)
