"""A Quart application on trio whose work is done by worker processes.

python -m examples.web.quart_app 127.0.0.1:8000
python examples/web/quart_app.py --selftest

The pool stands around the server, and `snakepit.run` around both: at SIGTERM first the server goes,
then the pool. Quart cancels a handler when its client is gone, so nothing has to be done for that.
"""

import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import hypercorn.trio
from hypercorn.config import Config
from quart import request
from quart.wrappers import Response
from quart_trio import QuartTrio

if __name__ == "__main__":  # as a file: imports start at the repository's root, not in this folder
    sys.path[0] = str(Path(__file__).parents[2])

import snakepit
from examples.web.stories import Stories


def make_app(pool: snakepit.Pool) -> QuartTrio:
    """The application of one pool."""
    app = QuartTrio(__name__)

    @app.get("/title")
    async def title() -> dict[str, str]:
        return {"title": await pool.call(Stories.title, about=request.args["about"])}

    @app.get("/ponder")
    async def ponder() -> dict[str, str]:
        """A long call. It has stopped when the client is gone, or when the time is up."""
        seconds = float(request.args["seconds"])
        return {"answer": await pool.execute("ponder", {"seconds": seconds}, timeout=60)}

    @app.get("/story")
    async def story() -> Response:
        """Server-sent events, each sent when the worker has made it."""
        words = int(request.args.get("words", 12))
        pause = float(request.args.get("pause", 0))

        async def events() -> AsyncIterator[str]:  # Quart closes it, however the response ends
            async with pool.stream("tell", {"words": words, "pause": pause}) as story:
                async for word in story:
                    yield f"data: {word}\n\n"

        response = Response(events(), content_type="text/event-stream")
        response.timeout = None
        return response

    @app.get("/stats")
    async def stats() -> dict[str, int]:
        now = pool.stats()
        return {"queued": now.queued, "busy": now.busy, "restarts": now.restarts}

    @app.get("/worker")
    async def worker() -> dict[str, int]:
        return {"pid": await pool.call(Stories.worker)}

    @app.errorhandler(snakepit.PoolSaturatedError)
    @app.errorhandler(snakepit.QueueTimeoutError)
    async def come_again(error: Exception) -> tuple[dict[str, str], int, dict[str, str]]:
        """It never ran: the client may try again."""
        return {"error": str(error)}, 503, {"Retry-After": "1"}

    @app.errorhandler(snakepit.CallTimeoutError)
    async def too_slow(error: Exception) -> tuple[dict[str, str], int]:
        return {"error": str(error)}, 504

    return app


async def main(*binds: str, until: Callable[[], Awaitable[None]] | None = None) -> None:
    """Serve on these addresses, as "127.0.0.1:8000", until cancelled or until this returns."""
    config = Config()
    config.bind = list(binds)
    serve: Any = hypercorn.trio.serve
    async with snakepit.open_pool(Stories, size=1, queue=snakepit.Queue.SERVICE) as pool:
        await serve(make_app(pool), config, shutdown_trigger=until)


async def serve_on(listener: socket.socket, stop: anyio.Event) -> None:
    """Serve until told to stop."""
    fd = os.dup(listener.fileno())  # hypercorn closes what it gets
    await main(f"fd://{fd}", until=stop.wait)


if __name__ == "__main__":
    if sys.argv[1:] == ["--selftest"]:
        from examples.web.selftest import selftest

        sys.exit(snakepit.run(selftest, serve_on))
    sys.exit(snakepit.run(main, *(sys.argv[1:] or ["127.0.0.1:8000"])))
