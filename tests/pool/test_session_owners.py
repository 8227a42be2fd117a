"""Sessions belong to the loop and the process of their pool, as all of it does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import trio
from keeping import Keeping
from pool_kit import run_script, tools_pool

from snakepit import Pool, Session

Uses = dict[str, Callable[[], Awaitable[Any]]]


async def enter(block: Any) -> None:
    """One half of `async with`, for blocks that cannot be entered."""
    await block.__aenter__()


def uses(pool: Pool, session: Session) -> Uses:
    """All that can be done with sessions."""
    return {
        "execute": lambda: session.execute("whose"),
        "call": lambda: session.call(Keeping.whose),
        "stream": lambda: enter(session.stream("recite", {"count": 1})),
        "map": lambda: enter(session.map("whose", [{}])),
        "on demand": lambda: pool.execute("whose", session="b"),
        "open": lambda: enter(pool.session("c")),
        "end": lambda: pool.end_session("b"),
    }


@pytest.mark.parametrize("other", ["trio", "asyncio"])
async def test_from_another_thread_with_a_loop_of_its_own_every_use_is_an_error(other: str) -> None:
    """It says what to do, and neither the session nor its pool takes any harm."""
    refused: dict[str, str] = {}

    async def use_all(pool: Pool, session: Session) -> None:
        for name, use in uses(pool, session).items():
            with pytest.raises(RuntimeError) as caught:
                await use()
            refused[name] = str(caught.value)

    def in_thread(pool: Pool, session: Session) -> None:
        if other == "trio":
            trio.run(use_all, pool, session)
        else:
            asyncio.run(use_all(pool, session))

    async with tools_pool(Keeping) as pool, pool.session("a") as session:
        assert await session.execute("remember", {"value": 1}) == [1]
        await anyio.to_thread.run_sync(in_thread, pool, session)
        assert await session.execute("remember", {"value": 2}) == [1, 2]
        assert (pool.stats().requests, len(pool._core.sessions)) == (2, 1)
        assert list(refused) == list(uses(pool, session))
        for text in refused.values():
            assert "belongs to the event loop that opened it" in text
            assert "open_pool_sync" in text


async def test_from_another_thread_calls_come_by_way_of_the_loop() -> None:
    """`anyio.from_thread`, as the error says."""
    async with tools_pool(Keeping) as pool, pool.session("a") as session:

        def in_thread() -> list[Any]:
            anyio.from_thread.run(session.execute, "remember", {"value": 1})
            return anyio.from_thread.run(session.execute, "remember", {"value": 2})

        assert await anyio.to_thread.run_sync(in_thread) == [1, 2]


FORKING = """
import os, {loop}, snakepit
from test_session_owners import uses

async def main():
    async with snakepit.open_pool("keeping:Keeping", size=1) as pool:
        async with pool.session("a") as session:
            await session.execute("remember", {{"value": 1}})
            child = os.fork()
            if child == 0:
                for name, use in uses(pool, session).items():
                    try:
                        use().__await__().send(None)
                    except RuntimeError as error:
                        print(f"{{name}}: {{error}}", flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            print("parent:", await session.execute("remember", {{"value": 2}}), flush=True)
        print("left:", sum(worker.sessions for worker in pool.workers()), flush=True)

if __name__ == "__main__":
    {run}
"""


@pytest.mark.parametrize(
    ("loop", "run"), [("trio", "trio.run(main)"), ("asyncio", "asyncio.run(main())")]
)
def test_in_a_forked_child_every_use_is_an_error(loop: str, run: str, tmp_path: Path) -> None:
    """And in the parent the session goes on."""
    result = run_script(tmp_path, FORKING.format(loop=loop, run=run), PYTHONWARNINGS="ignore")
    assert result.returncode == 0, result.stderr
    told = dict(line.split(": ", 1) for line in result.stdout.splitlines())
    assert (told.pop("parent"), told.pop("left")) == ("[1, 2]", "0")
    assert list(told) == list(uses(*[None] * 2))  # type: ignore[arg-type]
    for text in told.values():
        assert text.startswith("this pool belongs to the process that opened it")
        assert "forked child" in text
