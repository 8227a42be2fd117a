"""The applications of `examples/web`, with real servers: clients that come, and clients that go."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from _backends import trio_only
from _leaks import is_alive

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30
FOREVER_S = 3600

UVICORN = """
import socket, sys, uvicorn
server = uvicorn.Server(uvicorn.Config("examples.web.fastapi_app:app", log_level="warning"))
server.run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""
HYPERCORN = """
import sys, hypercorn.{loop}, snakepit
from hypercorn.config import Config
from examples.web.fastapi_app import app
config = Config()
config.bind = ["fd://" + sys.argv[1]]
snakepit.run(hypercorn.{loop}.serve, app, config, backend="{loop}")
"""
WRONG_TITLE = """
import sys, snakepit
from fastapi.routing import APIRoute
from examples.web.fastapi_app import app, serve
from examples.web.selftest import selftest
async def title() -> str: return "The Tale of the Frog"
app.router.routes.insert(0, APIRoute("/title", title))
sys.exit(snakepit.run(selftest, serve, backend="asyncio"))
"""
# Each way to serve on a descriptor, as arguments of Python.
SERVERS: dict[str, Callable[[int], list[str]]] = {
    "FastAPI on uvicorn": lambda fd: ["-c", UVICORN, str(fd)],
    "FastAPI on hypercorn and asyncio": lambda fd: [
        "-c",
        HYPERCORN.format(loop="asyncio"),
        str(fd),
    ],
    "FastAPI on hypercorn and trio": lambda fd: ["-c", HYPERCORN.format(loop="trio"), str(fd)],
    "Quart on hypercorn and trio": lambda fd: ["-m", "examples.web.quart_app", f"fd://{fd}"],
}


class Server:
    """A server that runs, and a client of it."""

    def __init__(self, process: subprocess.Popen[str], client: httpx.AsyncClient) -> None:
        self._process, self.client = process, client

    async def get(self, path: str) -> Any:
        response = await self.client.get(path)
        assert response.status_code == 200, response.text
        found = response.json()
        # FastAPI's routes return the value, Quart's a dict of it.
        return next(iter(found.values())) if isinstance(found, dict) and len(found) == 1 else found

    async def read(self, path: str, lines: list[str], came: anyio.Event) -> None:
        """Read a stream until cancelled, which closes the connection."""
        async with self.client.stream("GET", path) as response:
            async for line in response.aiter_lines():
                lines.append(line)
                came.set()

    async def until_busy(self, busy: int) -> None:
        await self._until("busy", busy)

    async def until_queued(self, queued: int) -> None:
        await self._until("queued", queued)

    async def _until(self, counter: str, value: int) -> None:
        with anyio.fail_after(PATIENCE_S / 2):
            while (await self.get("/stats"))[counter] != value:
                await anyio.sleep(0.01)

    async def serves_with(self, pid: int) -> None:
        """Nothing runs any more, and its only worker is the same and takes the next call."""
        await self.until_busy(0)
        assert await self.get("/worker") == pid
        assert (await self.get("/stats"))["restarts"] == 0

    def end(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE_S)


@contextmanager
def listening() -> Generator[tuple[int, str]]:
    """A descriptor to serve on: clients that come before the server is there wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        yield listener.fileno(), f"http://{host}:{port}"


@pytest.fixture(params=SERVERS)
async def server(request: pytest.FixtureRequest) -> AsyncGenerator[Server]:
    with listening() as (fd, address):
        process = subprocess.Popen(
            [sys.executable, *SERVERS[request.param](fd)],
            cwd=ROOT,
            pass_fds=[fd],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    with process:
        try:
            async with httpx.AsyncClient(base_url=address, timeout=PATIENCE_S) as client:
                yield Server(process, client)
        finally:
            process.kill()


@trio_only
async def test_a_call_a_stream_and_an_orderly_end(server: Server) -> None:
    assert await server.get("/title?about=snake") == "The Tale of the Snake"
    response = await server.client.get("/story?words=3")
    assert response.text == "data: once\n\ndata: upon\n\ndata: a\n\n"
    assert response.headers["content-type"].startswith("text/event-stream")
    pid = await server.get("/worker")
    assert is_alive(pid)
    server.end()
    assert not is_alive(pid)


@trio_only
async def test_a_client_that_goes_stops_the_call_and_the_worker_serves_on(server: Server) -> None:
    pid = await server.get("/worker")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.client.get, f"/ponder?seconds={FOREVER_S}")
        await server.until_busy(1)
        tasks.cancel_scope.cancel()
    await server.serves_with(pid)


@trio_only
async def test_a_client_that_goes_stops_the_stream_and_the_worker_serves_on(server: Server) -> None:
    """The first word comes although the second one takes an hour."""
    pid = await server.get("/worker")
    lines: list[str] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.read, f"/story?pause={FOREVER_S}", lines, came := anyio.Event())
        await came.wait()
        await server.until_busy(1)
        tasks.cancel_scope.cancel()
    assert lines[0] == "data: once"
    await server.serves_with(pid)


@trio_only
async def test_a_client_that_goes_while_its_call_waits_takes_it_out_of_the_line(
    server: Server,
) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.read, f"/story?pause={FOREVER_S}", [], came := anyio.Event())
        await came.wait()
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(server.client.get, "/title?about=snake")
            await server.until_queued(1)
            waiting.cancel_scope.cancel()
        await server.until_queued(0)
        assert (await server.get("/stats"))["busy"] == 1
        tasks.cancel_scope.cancel()
    await server.until_busy(0)


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S - 5,
        check=False,
    )


@pytest.mark.parametrize("app", ["fastapi_app", "quart_app"])
def test_an_application_tries_itself_with_its_real_server(app: str) -> None:
    result = run_python(f"examples/web/{app}.py", "--selftest")
    assert result.returncode == 0, result.stdout + result.stderr
    assert [line.partition(": ")[2] for line in result.stdout.splitlines()[1:5]] == [
        "The Tale of the Snake",
        "['once', 'upon', 'a']",
        "1",
        "0",
    ]
    assert result.stdout.endswith("its worker is: gone\nall as expected\n")


def test_a_selftest_fails_when_something_is_not_as_expected() -> None:
    result = run_python("-c", WRONG_TITLE)
    assert result.returncode == 1, result.stdout + result.stderr
    assert result.stdout.endswith("a title: The Tale of the Frog\n")
    assert "WRONG: expected The Tale of the Snake" in result.stderr
