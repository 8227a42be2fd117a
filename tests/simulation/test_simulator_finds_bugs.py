"""What the simulation is good for: bugs that were put in on purpose, each found within a few seeds."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from sim_bugs import PutIn, check_found

from snakepit.pool import _time_limits
from snakepit.pool._call import PendingCall
from snakepit.pool._core import PoolCore
from snakepit.pool._scheduler import Scheduler
from snakepit.pool._slot import Slot
from snakepit.pool._stream import Stream
from snakepit.pool._worker import Worker
from snakepit.protocol import Recall, Returned, ToWorker
from snakepit.worker._service import Service

Patch = pytest.MonkeyPatch
BUGS: dict[str, PutIn] = {}


def bug(put_in: PutIn) -> PutIn:
    BUGS[put_in.__name__] = put_in
    return put_in


@bug
def a_call_that_never_ran_is_said_to_have_run(patch: Patch) -> None:
    patch.setattr(Worker, "never_ran", lambda self, call: None)


@bug
def the_call_that_a_worker_died_of_is_sent_again(patch: Patch) -> None:
    submit = PoolCore.submit

    def submit_repeatable(self: PoolCore, *args: Any, **kwargs: Any) -> PendingCall:
        call = submit(self, *args, **kwargs)
        call.retries_left = 1
        return call

    patch.setattr(PoolCore, "submit", submit_repeatable)


@bug
def the_call_of_a_dead_worker_is_forgotten(patch: Patch) -> None:
    gone = PoolCore.gone

    def forget(self: PoolCore, worker: Worker, death: Any) -> None:
        calls = worker.seat.calls
        if calls:
            del calls[next(iter(calls))]
        gone(self, worker, death)

    patch.setattr(PoolCore, "gone", forget)


@bug
def freed_workers_get_nothing(patch: Patch) -> None:
    changed = Worker.seat_changed

    def keep_quiet(self: Worker, now: float) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(PoolCore, "dispatch", lambda core, now=None: None)
            changed(self, now)

    patch.setattr(Worker, "seat_changed", keep_quiet)


@bug
def credit_is_given_twice(patch: Patch) -> None:
    give = Stream._give_credit

    def give_twice(self: Stream) -> None:
        give(self)
        self._owed += 1
        give(self)

    patch.setattr(Stream, "_give_credit", give_twice)


@bug
def a_call_settles_twice(patch: Patch) -> None:
    settle = PoolCore.settle

    def again(self: PoolCore, call: PendingCall) -> None:
        settle(self, call)
        if call.given_up:
            settle(self, call)

    patch.setattr(PoolCore, "settle", again)


@bug
def a_running_call_waits_too_long(patch: Patch) -> None:
    waited = _time_limits.waited_too_long

    def whoever_has_it(core: PoolCore, call: PendingCall) -> None:
        worker, call.worker = call.worker, None
        waited(core, call)
        call.worker = worker

    patch.setattr(_time_limits, "waited_too_long", whoever_has_it)


@bug
def time_is_up_too_early(patch: Patch) -> None:
    submit = PoolCore.submit

    def hurry(self: PoolCore, *args: Any, timeout: float | None, **kwargs: Any) -> PendingCall:
        early = None if timeout is None else timeout * 0.9
        return submit(self, *args, timeout=early, **kwargs)

    patch.setattr(PoolCore, "submit", hurry)


@bug
def a_cancelled_call_is_left_at_once(patch: Patch) -> None:
    async def do_not_wait(self: PendingCall) -> None:
        await anyio.lowlevel.checkpoint()

    patch.setattr(PendingCall, "until_settled", do_not_wait)


@bug
def calls_that_come_back_are_lost(patch: Patch) -> None:
    patch.setattr(Scheduler, "put_back", lambda self, calls: None)


@bug
def a_worker_gives_back_what_it_keeps(patch: Patch) -> None:
    handle = Service._handle

    def keep(self: Service, message: ToWorker) -> None:
        if isinstance(message, Recall):
            kept = tuple(i for i in message.ids if i in self._lane.waiting)
            self._wire.send(Returned(kept))
        else:
            handle(self, message)

    patch.setattr(Service, "_handle", keep)


@bug
def a_dead_worker_is_not_replaced(patch: Patch) -> None:
    async def once(self: Slot, first_start_delay_s: float) -> None:
        await self.worker.live(hatched=lambda: None)

    patch.setattr(Slot, "run", once)


@bug
def the_queue_outlives_the_pool(patch: Patch) -> None:
    patch.setattr(PoolCore, "_drop_queue", lambda self: None)


@bug
def a_call_is_lost_on_its_way_in(patch: Patch) -> None:
    submit = Scheduler.submit

    def lose(self: Scheduler[Any], call: Any) -> Any:
        result = submit(self, call)
        self._queue.pop(call.id, None)
        return result

    patch.setattr(Scheduler, "submit", lose)


@bug
def errors_are_not_counted(patch: Patch) -> None:
    settle = PoolCore.settle

    def forget(self: PoolCore, call: PendingCall) -> None:
        before = self.errors
        settle(self, call)
        self.errors = before

    patch.setattr(PoolCore, "settle", forget)


@bug
def closing_waits_for_running_calls(patch: Patch) -> None:
    def close(self: Worker) -> None:
        self.seat.drain()
        self.seat_changed(self._core.now())

    patch.setattr(Worker, "close", close)


@pytest.mark.timeout(300)  # some are met in few of many runs
@pytest.mark.parametrize("name", BUGS)
def test_a_bug_is_found(name: str, monkeypatch: Patch) -> None:
    check_found(name, BUGS[name], monkeypatch)
