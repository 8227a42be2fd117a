"""Deaths of workers and the calls that they died of: what the pool asks its deciders, and when.

One synchronous place. While no worker dies of a call it costs each call one look, at `known`; then, for
as long as there are suspects, each call is compared with them when it comes and when its turn has come.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from msgspec import Raw

from snakepit.errors import CallQuarantinedError, SessionLostError, WorkerDiedError
from snakepit.resilience import Blame, Death, Fingerprint, Quarantine, Suspect

if TYPE_CHECKING:
    from snakepit.options import CrashBarrier
    from snakepit.pool._call import PendingCall
    from snakepit.pool._worker import Worker
    from snakepit.protocol import Buffers

_log = logging.getLogger("snakepit.pool")


class Suspects:
    """The suspects of one pool. `known` is empty while no worker dies of a call."""

    def __init__(self, barrier: CrashBarrier) -> None:
        self._blame = Blame(window_s=barrier.window)
        self._quarantine = Quarantine(
            quarantine_after=barrier.quarantine_after, window_s=barrier.window
        )
        self.known: OrderedDict[bytes, Suspect] = self._quarantine.suspects

    def check(
        self, tool: str, body: Raw, buffers: Buffers, now: float, *, started: bool = False
    ) -> Suspect | None:
        """What is known of such a call. Raises CallQuarantinedError."""
        suspect = self._quarantine.find(_fingerprint(tool, body, buffers), now)
        if suspect is not None and self._quarantine.refuses(suspect):
            left_s = self._quarantine.seconds_left(suspect, now)
            raise CallQuarantinedError(tool, suspect.kills, left_s, started, suspect.certificate)
        return suspect

    def may_begin(self, call: PendingCall, now: float) -> bool:
        """It is about to be sent to a worker. False: it has failed."""
        if not call.pumps:  # else what it is given is not known beforehand
            started = call.may_have_run
            try:
                call.suspect = self.check(call.tool, call.body, call.buffers, now, started=started)
            except CallQuarantinedError as error:
                call.error = error
                return False
        return True

    def settled(self, call: PendingCall, now: float) -> None:
        """A suspect call is over. If its worker has answered, it is suspect no more."""
        suspect = call.suspect
        assert suspect is not None
        died = isinstance(call.error, WorkerDiedError | SessionLostError)
        if call.worker is not None and not call.given_up and not died:
            if suspect.doubtful and self._blame.cleared(now, suspect.digest):
                self._quarantine.killer_seen()
            self._quarantine.answered(suspect)

    def buried(
        self,
        worker: Worker,
        left: Sequence[PendingCall],
        others: Iterable[Worker],
        now: float,
    ) -> None:
        """A worker is gone that its pool did not end, with these calls unanswered: whose fault is it?

        Never raises: these calls are still to be settled.
        """
        try:
            self._judge(worker, left, list(others), now)
        except Exception:
            _log.exception("why a worker died could not be judged; its calls end all the same")

    def _judge(
        self, worker: Worker, left: Sequence[PendingCall], others: list[Worker], now: float
    ) -> None:
        status = worker.status
        verdict = self._blame.judge(
            now,
            Death(
                status.exit_code,
                status.signal,
                status.oom_kills,
                said_goodbye=worker.said_goodbye,
                had_call=bool(left),
                was_ready=worker.reading is not None,
            ),
            ready=bool(others) or worker.reading is not None,
            useful=any(each.seat.finished_count for each in (worker, *others)),
        )
        worker.was_fruitful = verdict.outside
        if verdict.killer:
            self._quarantine.killer_seen()
        if not verdict.of_call:
            return
        call = left[0]
        if call.given_up or call.settled or call.pumps or not call.reached_worker:
            return  # that it was to stop may have had its part in it; or it never was there
        self._quarantine.killed(
            _fingerprint(call.tool, call.body, call.buffers),
            now,
            known=call.suspect,
            doubtful=verdict.doubtful,
            certificate=str(worker.death),
        )
        if self.known:
            for running in (c for other in others for c in other.seat.calls.values()):
                if not running.pumps:  # its answer is to count; what it knows may be out of date
                    mark = _fingerprint(running.tool, running.body, running.buffers)
                    running.suspect = self._quarantine.find(mark, now) or running.suspect


def _fingerprint(tool: str, body: Raw, buffers: Buffers) -> Fingerprint:
    return Fingerprint(tool, (memoryview(body), *buffers))
