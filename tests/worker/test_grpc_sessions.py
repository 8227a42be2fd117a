"""Sessions that clients name: over when nobody has used them for long, and not before."""

from __future__ import annotations

import asyncio

import pytest
from _backends import asyncio_only
from test_grpc_guest import hosted, settle

from snakepit.protocol import Call, EndSession, Item, Result
from snakepit.worker import _grpc_sessions
from snakepit.worker._grpc_host import Inbox
from snakepit.worker._grpc_services import NO_PARAMS
from snakepit.worker._grpc_sessions import ClientSessions


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its one item is the time."""
    now = [0.0]
    monkeypatch.setattr(_grpc_sessions, "monotonic", lambda: now[0])
    return now


def test_a_session_is_forgotten_when_it_has_been_idle_for_long(clock: list[float]) -> None:
    forgotten: list[str] = []
    sessions = ClientSessions(forgotten.append)
    for session in ("one", "other"):
        sessions.begin(session)
        sessions.end(session)
    clock[0] = _grpc_sessions.SESSION_IDLE_S / 2
    sessions.begin("one")
    sessions.end("one")
    clock[0] = _grpc_sessions.SESSION_IDLE_S + 1
    sessions.begin("")
    assert forgotten == ["other"]
    assert "one" in sessions
    assert "other" not in sessions
    assert "" not in sessions


def test_a_session_that_has_a_call_is_not_idle(clock: list[float]) -> None:
    """However long that takes: another call of the session would find nothing of it."""
    forgotten: list[str] = []
    sessions = ClientSessions(forgotten.append)
    sessions.begin("busy")
    sessions.begin("busy")
    sessions.end("busy")
    clock[0] = 2 * _grpc_sessions.SESSION_IDLE_S
    sessions.begin("")
    assert (forgotten, "busy" in sessions) == ([], True)
    sessions.end("busy")
    clock[0] += _grpc_sessions.SESSION_IDLE_S
    sessions.begin("")
    assert forgotten == []
    clock[0] += 1
    sessions.begin("")
    assert forgotten == ["busy"]


def test_of_too_many_the_one_that_has_been_idle_for_the_longest_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_grpc_sessions, "SESSIONS_MAX", 2)
    forgotten: list[str] = []
    sessions = ClientSessions(forgotten.append)
    for session in ("one", "two", "three", "four", "one"):
        sessions.begin(session)
        sessions.end(session)
    assert forgotten == ["one", "two", "three"]


@asyncio_only
async def test_a_call_is_of_its_session_until_its_outcome_has_come(clock: list[float]) -> None:
    """Also one that its client has left."""
    async with hosted() as (worker, _, host):

        async def run() -> None:
            arrivals = Inbox()
            async with host.call(
                "echo", NO_PARAMS, session="s", timeout_s=None, streams=True, comes=arrivals
            ):
                while isinstance(await arrivals.get(), Item):
                    pass

        left, kept = asyncio.ensure_future(run()), asyncio.ensure_future(run())
        first, second = await worker.hears()
        assert isinstance(first, Call)
        assert isinstance(second, Call)
        left.cancel()
        await worker.says(Result(second.id))
        await kept
        clock[0] = 2 * _grpc_sessions.SESSION_IDLE_S
        host.sessions.begin("")
        assert EndSession("s") not in await worker.hears()
        await worker.says(Result(first.id))
        await asyncio.wait([left])
        await settle()
        clock[0] *= 2
        host.sessions.begin("")
        assert await worker.hears() == [EndSession("s")]
