"""When a worker over gRPC counts as gone: no answer, and no work; nothing waits for real time here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from _backends import asyncio_only

from snakepit.grpc import _pulse
from snakepit.grpc._pulse import MISSED_MAX, until_silent

HERE = 4711  # its pid


class Peer:
    """A connection to a worker that does in each interval what the plan says: answer, work, nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, plan: str) -> None:
        self.plan: Iterator[str] = iter(plan)
        self.pings = self.ticks = 0
        self.ping_ack_process: Any = None
        self._connection = self
        monkeypatch.setattr(_pulse, "_pause", self.pause)
        monkeypatch.setattr(_pulse, "cpu_ticks", lambda pid: self.ticks)

    async def pause(self) -> None:
        match next(self.plan):
            case "a":
                self.ping_ack_process()
            case "w":
                self.ticks += 1

    def ping(self, data: bytes) -> None:
        assert len(data) == 8
        self.pings += 1

    def flush(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False


async def pings_until_silent(peer: Peer, pid: int | None) -> int | None:
    """How many it took, None if the plan ended first."""
    try:
        await until_silent(peer, pid)  # type: ignore[arg-type]
    except RuntimeError as error:
        assert isinstance(error.__cause__, StopIteration)
        return None
    return peer.pings


@asyncio_only
@pytest.mark.parametrize(
    ("plan", "pid", "pings"),
    [
        ("...", HERE, 3),
        ("aaaa...", HERE, 7),
        ("..a..a...", HERE, 9),
        ("..w..w...", HERE, 9),
        ("w" * 100, HERE, None),
        ("...", None, 3),
        ("..w", None, 3),
        ("a..a...", None, 7),
    ],
)
async def test_three_intervals_without_an_answer_and_without_work_are_the_end(
    plan: str, pid: int | None, pings: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work of one that runs elsewhere cannot be seen."""
    assert MISSED_MAX == 3
    assert await pings_until_silent(Peer(monkeypatch, plan), pid) == pings


@asyncio_only
async def test_where_the_system_does_not_tell_who_works_no_process_of_ours_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peer = Peer(monkeypatch, "." * 100)
    monkeypatch.setattr(_pulse, "cpu_ticks", lambda pid: None)
    assert await pings_until_silent(peer, HERE) is None
