"""Cancel what a request has begun when its client goes away.

ASGI servers tell an application of a disconnect by a message that nobody reads: Starlette and FastAPI let
a handler run on to its end. This middleware reads it, in a race with the application.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

import anyio

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class CancelOnDisconnect:
    """`app.add_middleware(CancelOnDisconnect)`.

    It is the server's task that is cancelled, so everything that belongs to the request is: handler,
    dependencies, response. Clean-up of theirs that awaits wants a shield, as after any cancellation.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        error: Exception | None = None
        to_app, messages = anyio.create_memory_object_stream[Message](1)
        with to_app, messages:
            async with anyio.create_task_group() as tasks:

                async def listen() -> None:
                    while (message := await receive())["type"] != "http.disconnect":
                        await to_app.send(message)
                    tasks.cancel_scope.cancel()

                tasks.start_soon(listen)
                try:
                    await self._app(scope, messages.receive, send)
                except Exception as raised:  # as itself, not in a group
                    error = raised
                tasks.cancel_scope.cancel()
        if error is not None:
            raise error
