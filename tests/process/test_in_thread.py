"""Blocking work of ours in a thread: seen to its end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from snakepit._loops import this_loop
from snakepit.process import _in_thread


class SlowToLetGo:
    """A loop whose caller is kept in `call_soon` for a moment after the loop has been woken."""

    def __init__(self) -> None:
        self._loop = this_loop()

    def call_soon(self, function: Callable[[], object]) -> None:
        self._loop.call_soon(function)
        threading.Event().wait(0.05)


async def test_the_thread_is_gone_when_its_work_has_been_awaited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_in_thread, "this_loop", SlowToLetGo)
    ran: list[threading.Thread] = []
    await _in_thread.in_thread(lambda: ran.append(threading.current_thread()))
    assert not ran[0].is_alive()


async def test_what_the_thread_raised_is_raised() -> None:
    def fail() -> Any:
        raise LookupError("the sky")

    with pytest.raises(LookupError, match="the sky"):
        await _in_thread.in_thread(fail)


async def test_it_is_done_here_where_no_thread_can_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    ran: list[threading.Thread] = []
    await _in_thread.in_thread(lambda: ran.append(threading.current_thread()))
    assert ran == [threading.current_thread()]
