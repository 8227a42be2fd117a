"""Both applications, each with its real server and a client: `--selftest`.

Server, pool and client are in this one process, so whatever ends it ends them.
"""

import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import anyio
import httpx

SELFTEST_MAX_S = 60  # to hang is to fail
FOREVER_S = 3600

# Serve on this socket, which listens already, until the event is set; then end in good order.
Serve: TypeAlias = Callable[[socket.socket, anyio.Event], Awaitable[None]]


async def selftest(serve: Serve) -> None:
    """Serve on a free port of the loopback address, and be a client of it.

    Raises: SystemExit: something was not as expected. TimeoutError: it took too long.
    """
    listener = socket.create_server(
        ("127.0.0.1", 0)
    )  # clients that come too early wait in its line
    host, port = listener.getsockname()
    with listener, anyio.fail_after(SELFTEST_MAX_S):
        stop = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, listener, stop)
            print(f"serving on http://{host}:{port}")
            address = f"http://{host}:{port}"
            async with httpx.AsyncClient(base_url=address, timeout=SELFTEST_MAX_S) as client:
                pid = await _use(client)
            stop.set()
    _expect("the server has ended; its worker is", "gone", "there" if _is_there(pid) else "gone")
    print("all as expected")


async def _use(client: httpx.AsyncClient) -> int:
    """Do what clients do, leaving in the middle included; return the worker's pid."""
    pid: int = await _get(client, "/worker")
    title = await _get(client, "/title?about=snake")
    _expect("a title", "The Tale of the Snake", title)
    response = await client.get("/story?words=3")
    words = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    _expect("a story, streamed", ["once", "upon", "a"], words)
    await _leave_a_long_call(client)
    await _until_busy(client, 0)
    print("its client has left; tools at work: 0")
    _expect("the next call is served by the same worker", pid, await _get(client, "/worker"))
    _expect("workers replaced", 0, (await _get(client, "/stats"))["restarts"])
    return pid


async def _leave_a_long_call(client: httpx.AsyncClient) -> None:
    """Cancelling the client's call closes its connection; that is all that the server learns."""
    async with anyio.create_task_group() as call:
        call.start_soon(client.get, f"/ponder?seconds={FOREVER_S}")
        await _until_busy(client, 1)
        print("a long call has begun; tools at work: 1")
        call.cancel_scope.cancel()


async def _until_busy(client: httpx.AsyncClient, busy: int) -> None:
    """Wait until so many tools are at work; if that never comes, the time limit of all ends it."""
    while (await _get(client, "/stats"))["busy"] != busy:  # noqa: ASYNC110 - no event comes over HTTP
        await anyio.sleep(0.01)


async def _get(client: httpx.AsyncClient, path: str) -> Any:
    response = await client.get(path)
    response.raise_for_status()
    found = response.json()
    # FastAPI's routes return the value, Quart's a dict of it.
    return next(iter(found.values())) if isinstance(found, dict) and len(found) == 1 else found


def _expect(what: str, expected: object, seen: object) -> None:
    """Print what was seen; end the program if it is not what was expected."""
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"WRONG: expected {expected}")


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
