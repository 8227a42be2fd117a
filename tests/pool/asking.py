"""The adapters of the tests of host tools: tools that ask their host."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import copy_context
from typing import Any

from adapters import log_line, touch

from snakepit import Adapter, HostToolError, ToolCancelled, context, tool


class Asking(Adapter):
    """Sync tools."""

    @tool
    def pid(self) -> int:
        return os.getpid()

    @tool
    def echo(self, value: Any = None) -> Any:
        return value

    @tool
    def ask(self, name: str, params: dict[str, Any] | None = None) -> Any:
        return context().call_host(name, params)

    @tool
    def ask_proxy(self, name: str, params: dict[str, Any]) -> Any:
        return context().host_tools[name](**params)

    @tool
    def ask_often(self, name: str, times: int) -> list[Any]:
        return [context().call_host(name, {"number": number}) for number in range(times)]

    @tool
    def ask_and_catch(self, name: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """What the tool sees of an error."""
        try:
            context().call_host(name, params)
        except Exception as error:
            return {
                "class": type(error).__name__,
                "bases": [base.__name__ for base in type(error).__mro__],
                "type": getattr(error, "type", None),
                "text": str(error),
                "notes": "".join(getattr(error, "__notes__", ())),
            }
        return {}

    @tool
    def ask_and_log(self, name: str, log: str) -> None:
        """Ask, and tell how the wait ended."""
        try:
            context().call_host(name)
        except ToolCancelled:
            log_line(log, "cancelled")
            try:
                context().call_host(name)
            except ToolCancelled:
                log_line(log, "cancelled again")
            raise

    @tool
    def ask_in_thread(self, name: str) -> Any:
        """From a thread of the tool's own."""
        answers: list[Any] = []
        run = copy_context().run
        thread = threading.Thread(
            target=run, args=(lambda: answers.append(context().call_host(name)),)
        )
        thread.start()
        thread.join()
        return answers

    @tool
    def ask_in_threads(self, name: str, count: int, size: int) -> list[int]:
        """Large values from many threads at once."""
        answers: list[int] = []

        def ask(number: int) -> None:
            value = bytes([number]) * size
            back = context().call_host(name, {"value": value})
            answers.append(number if back == value else -1)

        threads = [
            threading.Thread(target=copy_context().run, args=(ask, number))
            for number in range(count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(answers)

    @tool
    def report_and_ask(self, name: str) -> Any:
        context().progress(1, 2, "before")
        answer = context().call_host(name)
        context().progress(2, 2, "after")
        return answer

    @tool(idempotent=True)
    def ask_and_die_once(self, name: str, log: str) -> Any:
        first = not os.path.exists(log)
        log_line(log, os.getpid())
        if first:
            threading.Timer(0.1, os._exit, (3,)).start()
        return context().call_host(name)

    @tool
    def questions(self, name: str, count: int) -> Iterator[Any]:
        for number in range(count):
            yield context().call_host(name, {"number": number})

    @tool
    def numbers(self, count: int, started: str = "") -> Iterator[int]:
        if started:
            touch(started)
        yield from range(count)

    @tool
    def answer(self, value: Any) -> Any:
        return value


class AsyncAsking(Adapter):
    """Async tools, on either loop."""

    @tool
    async def ask(self, name: str, params: dict[str, Any] | None = None) -> Any:
        return await context().acall_host(name, params)

    @tool
    async def ask_proxy(self, name: str, params: dict[str, Any]) -> Any:
        return await context().host_tools[name](**params)

    @tool
    async def ask_at_once(self, name: str, times: int) -> list[Any]:
        import anyio

        answers: list[Any] = []

        async def ask(number: int) -> None:
            answers.append(await context().acall_host(name, {"number": number}))

        async with anyio.create_task_group() as tasks:
            for number in range(times):
                tasks.start_soon(ask, number)
        return sorted(answers)

    @tool
    async def ask_in_time(self, name: str, seconds: float) -> str:
        """Give the host call up by itself, and go on."""
        import anyio

        with anyio.move_on_after(seconds):
            await context().acall_host(name)
            return "answered"
        return "gave it up"

    @tool
    async def ask_wrongly(self, name: str) -> Any:
        return context().call_host(name)

    @tool
    async def ask_and_catch(self, name: str) -> list[str | None]:
        try:
            await context().acall_host(name)
        except HostToolError as error:
            return [type(error).__name__, error.type, error.message]
        return []

    @tool
    async def questions(self, name: str, count: int) -> AsyncIterator[Any]:
        for number in range(count):
            yield await context().acall_host(name, {"number": number})

    @tool
    async def echo(self, value: Any = None) -> Any:
        return value
