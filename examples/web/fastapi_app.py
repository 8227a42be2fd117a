"""A FastAPI application whose work is done by worker processes.

uvicorn examples.web.fastapi_app:app
python examples/web/fastapi_app.py --selftest
"""

import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import anyio
import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

if __name__ == "__main__":  # as a file: imports start at the repository's root, not in this folder
    sys.path[0] = str(Path(__file__).parents[2])

import snakepit
from examples.web.disconnect import CancelOnDisconnect
from examples.web.stories import Stories


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, snakepit.Pool]]:
    """The pool lives as long as the server: it is there before the first request."""
    async with snakepit.open_pool(Stories, size=1, queue=snakepit.Queue.SERVICE) as pool:
        yield {"pool": pool}


app = FastAPI(lifespan=lifespan)
app.add_middleware(CancelOnDisconnect)


async def the_pool(request: Request) -> snakepit.Pool:
    pool: snakepit.Pool = request.state.pool
    return pool


PoolOfStories = Annotated[snakepit.Pool, Depends(the_pool)]


@app.get("/title")
async def title(about: str, pool: PoolOfStories) -> str:
    return await pool.call(Stories.title, about=about)


@app.get("/ponder")
async def ponder(seconds: float, pool: PoolOfStories) -> str:
    """A long call. It has stopped when the client is gone, or when the time is up."""
    answer: str = await pool.execute("ponder", {"seconds": seconds}, timeout=60)
    return answer


async def open_story(
    pool: PoolOfStories, words: int = 12, pause: float = 0.0
) -> AsyncGenerator[snakepit.Stream[str]]:
    """FastAPI leaves this block after the response, so the tool is closed by then, however it ends."""
    async with pool.stream("tell", {"words": words, "pause": pause}) as story:
        yield story


@app.get("/story")
async def story(words: Annotated[snakepit.Stream[str], Depends(open_story)]) -> StreamingResponse:
    """Server-sent events, each sent when the worker has made it."""
    return StreamingResponse(_events(words), media_type="text/event-stream")


def _events(words: AsyncIterator[str]) -> AsyncIterator[str]:
    return (f"data: {word}\n\n" async for word in words)


@app.get("/stats")
async def stats(pool: PoolOfStories) -> dict[str, int]:
    now = pool.stats()
    return {"queued": now.queued, "busy": now.busy, "restarts": now.restarts}


@app.get("/worker")
async def worker(pool: PoolOfStories) -> int:
    return await pool.call(Stories.worker)


@app.exception_handler(snakepit.PoolSaturatedError)
@app.exception_handler(snakepit.QueueTimeoutError)
async def come_again(_: Request, error: Exception) -> Response:
    """It never ran: the client may try again."""
    return JSONResponse({"error": str(error)}, 503, headers={"Retry-After": "1"})


@app.exception_handler(snakepit.CallTimeoutError)
async def too_slow(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 504)


async def serve(listener: socket.socket, stop: anyio.Event) -> None:
    """Serve until told to stop, as `uvicorn --timeout-graceful-shutdown 5` does until SIGTERM."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listener])
        await stop.wait()
        server.should_exit = True


if __name__ == "__main__":
    if sys.argv[1:] != ["--selftest"]:
        sys.exit("to serve: uvicorn examples.web.fastapi_app:app\nto try it: --selftest")
    from examples.web.selftest import selftest

    sys.exit(snakepit.run(selftest, serve, backend="asyncio"))
