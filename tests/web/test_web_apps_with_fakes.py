"""How an application is tested without its model: a fake adapter in memory, and no server."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from _backends import trio_only

import snakepit
from examples.web.disconnect import CancelOnDisconnect
from examples.web.fastapi_app import app, the_pool
from examples.web.quart_app import make_app
from examples.web.stories import Stories
from snakepit.testing import fake_adapter


@asynccontextmanager
async def fastapi(pool: snakepit.Pool) -> AsyncGenerator[httpx.AsyncClient]:
    app.dependency_overrides[the_pool] = lambda: pool
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        yield client
    app.dependency_overrides.clear()


@asynccontextmanager
async def quart(pool: snakepit.Pool) -> AsyncGenerator[httpx.AsyncClient]:
    app: Any = make_app(pool)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        yield client


both_apps = pytest.mark.parametrize("application", [fastapi, quart])


@trio_only
@both_apps
async def test_answers_and_streams_of_a_fake(application: Any) -> None:
    fake = fake_adapter(like=Stories, title="A Title", tell=["hiss", "hiss"])
    async with (
        snakepit.open_pool(fake, size=1, transport="memory") as pool,
        application(pool) as client,
    ):
        assert "A Title" in (await client.get("/title?about=it")).text
        assert (await client.get("/story?words=2")).text == "data: hiss\n\ndata: hiss\n\n"
    assert fake.calls == [
        ("title", {"about": "it"}),
        ("tell", {"words": 2, "pause": 0.0}),
    ]


@trio_only
@both_apps
async def test_a_full_pool_is_503_and_tells_when_to_come_again(application: Any) -> None:
    options: Any = {"size": 1, "transport": "memory", "queue": snakepit.Queue(max_size=0)}

    async def ponder(seconds: float) -> None:
        await anyio.sleep(seconds)

    fake = fake_adapter(like=Stories, ponder=ponder, title="A Title")
    async with (
        snakepit.open_pool(fake, **options) as pool,
        application(pool) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(pool.execute, "ponder", {"seconds": 3600})
        await anyio.wait_all_tasks_blocked()
        response = await client.get("/title?about=it")
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        tasks.cancel_scope.cancel()


async def test_without_a_disconnect_the_middleware_changes_nothing() -> None:
    """Bodies arrive, other scopes pass, and errors are themselves."""
    seen: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["type"], (await receive())["type"]))
        if scope["type"] == "http":
            raise LookupError("of the application")

    async def receive() -> dict[str, Any]:
        if seen:
            await anyio.sleep_forever()
        await anyio.lowlevel.checkpoint()
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    middleware = CancelOnDisconnect(inner)
    await middleware({"type": "lifespan"}, receive, send)
    seen_first = seen.pop()
    with pytest.raises(LookupError, match="of the application"):
        await middleware({"type": "http"}, receive, send)
    assert [seen_first, *seen] == [("lifespan", "http.request"), ("http", "http.request")]
