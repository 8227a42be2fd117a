"""The process of one contender: `python -m benchmarks._driver CONTENDER WORKERS IN OUT`.

It opens the contender, says hello on descriptor OUT, and then answers one JSON line on IN after
the other with one on OUT, until IN ends. Nothing is imported here before `main`: the workers
that multiprocessing spawns import this file again.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from typing import Any


def main() -> None:
    """Take part."""
    name, workers, read_fd, write_fd = sys.argv[1], *map(int, sys.argv[2:5])
    with os.fdopen(read_fd) as commands, os.fdopen(write_fd, "w") as replies:
        try:
            _serve(name, workers, commands, replies)
        except BaseException as error:
            _say(replies, failed="".join(traceback.format_exception(error)))
            raise


def _say(replies: Any, **reply: Any) -> None:
    replies.write(json.dumps(reply) + "\n")
    replies.flush()


def _serve(name: str, workers: int, commands: Any, replies: Any) -> None:
    import anyio

    from benchmarks._contenders import EVERYONE
    from benchmarks._measures import MEASURES
    from snakepit import ConfigError

    contender = EVERYONE[name]

    async def main() -> None:
        start = time.perf_counter()
        async with contender.open(workers) as calls:
            await calls.nothing()
            _say(replies, opened_s=time.perf_counter() - start)
            while line := await anyio.to_thread.run_sync(commands.readline):
                command = json.loads(line)
                measure = MEASURES[command.pop("measure")]
                _say(replies, result=await measure(calls, **command))

    try:
        contender.load()
    except ImportError as error:
        _say(replies, left_out=f"not installed ({error})")
        return
    try:
        anyio.run(main, backend=contender.backend)
    except ConfigError as error:
        if error.option != "transport":
            raise
        _say(replies, left_out=str(error))


if __name__ == "__main__":
    main()
