"""What the worker does with messages, seen from inside."""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import Any

from msgspec import Raw

from snakepit.protocol import Call, Cancel
from snakepit.worker._job import Job
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
