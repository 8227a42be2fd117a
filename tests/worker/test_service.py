"""What the worker does with messages, seen from inside."""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import Raw

from snakepit.protocol import Call, Cancel, Result
from snakepit.worker._execution import Execution
from snakepit.worker._interrupt import Interrupt
from snakepit.worker._job import Job
from snakepit.worker._offspring import now
from snakepit.worker._service import Service


def test_a_cancelled_call_that_has_ended_is_not_kept() -> None:
    """Nobody may look again before a long time has passed, and its arguments are the host's memory."""
    sent: list[Any] = []
    lane = SimpleNamespace(waiting={}, running=None, cancel=lambda job: None)
    service = Service(
        SimpleNamespace(send=sent.append),  # type: ignore[arg-type]
        lane,  # type: ignore[arg-type]
        SimpleNamespace(send=lambda: sent.append("interrupt")),  # type: ignore[arg-type]
        {},
        cancel_grace_s=1,
    )
    job = lane.running = Job(Call(1, "tool", Raw(b""), ()))
    service.handle_all([Cancel(1)])
    assert (job.cancelled, service.nag(), sent) == (True, True, ["interrupt"])
    gone = weakref.ref(job)
    del job
    lane.running = None
    assert gone() is None
    assert service.nag() is False


@pytest.mark.parametrize("tells_time", [True, False])
def test_a_result_tells_how_long_the_call_has_taken(tells_time: bool) -> None:
    """Not where time is virtual: then it would be another clock's."""
    sent: list[Result] = []
    wire = SimpleNamespace(send=sent.append, places=None)
    execution = Execution(wire, Interrupt(), {})  # type: ignore[arg-type]
    execution.tells_time = tells_time
    job = Job(Call(1, "tool", Raw(b""), ()))
    job.begun = now() - 0.5
    execution.finish(job, None, "value")
    (result,) = sent
    if tells_time:
        assert result.took_us is not None
        assert 500_000 <= result.took_us < 60_000_000
    else:
        assert result.took_us is None
