"""As test_simulator_finds_bugs.py: bugs in sessions, maps and progress, each with what is said of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from sim_bugs import PutIn, check_found

from snakepit import SessionBusyError
from snakepit.pool import _ancestry, _session
from snakepit.pool._attending import Attendant, Attendants, Nursery
from snakepit.pool._call import PendingCall
from snakepit.pool._core import PoolCore
from snakepit.pool._homes import Homes
from snakepit.pool._host_calls import HostCalls
from snakepit.pool._inputs import AsyncInput, PlainInput
from snakepit.pool._map import Results
from snakepit.pool._progress import Feed
from snakepit.pool._pumps import Pump
from snakepit.pool._sessions import SessionRecord, SessionTable
from snakepit.pool._suspects import Suspects
from snakepit.pool._worker import Worker
from snakepit.protocol import Buffers, Progress, decode_value, encode_value
from snakepit.worker._sessions import SessionStates

Patch = pytest.MonkeyPatch
BUGS: dict[str, tuple[str, PutIn]] = {}


def bug(says: str) -> Callable[[PutIn], PutIn]:
    def register(put_in: PutIn) -> PutIn:
        BUGS[put_in.__name__] = says, put_in
        return put_in

    return register


# -- sessions ----------------------------------------------------------------------------------------


@bug("finds the state of another session")
def a_worker_keeps_what_was_left_in_a_session(patch: Patch) -> None:
    patch.setattr(PoolCore, "_forget_session", lambda *_: None)


@bug("for nobody")
def a_worker_keeps_the_state_of_sessions_that_are_over(patch: Patch) -> None:
    patch.setattr(PoolCore, "_forget_session", lambda *_: None)


@bug("finds the state of another session")
def all_sessions_of_a_worker_share_one_state(patch: Patch) -> None:
    of = SessionStates.of
    patch.setattr(SessionStates, "of", lambda self, _session: of(self, "one for all"))


@bug("ran before it in")
def a_session_loses_its_state_between_two_calls(patch: Patch) -> None:
    patch.setattr(SessionStates, "of", lambda self, _session: {})


@bug("")  # a later call finds it, or the worker keeps it for nobody
def a_session_that_moves_leaves_its_state_behind(patch: Patch) -> None:
    sent = SessionTable.sent

    def forget_to_tell(self: SessionTable, call: PendingCall, seat: Any) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self, "_forget", lambda *_: None)
            sent(self, call, seat)

    patch.setattr(SessionTable, "sent", forget_to_tell)


@bug("of a strict session that ran on")
def a_strict_session_outlives_its_worker(patch: Patch) -> None:
    gone = SessionTable.worker_gone

    def nothing_lost(self: SessionTable, seat: Any, *more: Any) -> list[PendingCall]:
        for record in self._at.get(seat, {}).values():
            record.begun = False
        return gone(self, seat, *more)

    patch.setattr(SessionTable, "worker_gone", nothing_lost)


@bug("but it ran")
def a_call_that_ran_is_lost_with_its_session(patch: Patch) -> None:
    begin = SessionTable.begin

    def keep_retries(
        self: SessionTable, call: PendingCall, record: SessionRecord, seat: Any, now: float
    ) -> None:
        retries = call.retries_left
        begin(self, call, record, seat, now)
        call.retries_left = retries

    patch.setattr(SessionTable, "begin", keep_retries)


@bug("no strict session lived there")
def a_session_of_a_hint_is_lost(patch: Patch) -> None:
    gone = SessionTable.worker_gone

    def lose(self: SessionTable, seat: Any, *more: Any) -> list[PendingCall]:
        for record in self._at.get(seat, {}).values():
            if not record.strict and record.held:
                record.lost_with = seat.name
        return gone(self, seat, *more)

    patch.setattr(SessionTable, "worker_gone", lose)


@bug("a session whose calls never do")
def a_call_that_shall_fail_fast_waits(patch: Patch) -> None:
    place = SessionTable.place

    def wait(self: SessionTable, session: str | SessionRecord) -> Any:
        record = session if isinstance(session, SessionRecord) else self._find(session)
        affinity, record.affinity = record.affinity, "strict_queue"
        try:
            return place(self, record)
        finally:
            record.affinity = affinity

    patch.setattr(SessionTable, "place", wait)


@bug("its calls may wait")
def a_call_that_could_wait_fails_fast(patch: Patch) -> None:
    place = SessionTable.place

    def refuse(self: SessionTable, session: str | SessionRecord) -> Any:
        record, seat = place(self, session)
        if seat is not None and seat.calls:
            raise SessionBusyError(record.id, "is busy")
        return record, seat

    patch.setattr(SessionTable, "place", refuse)


@bug("was not used for")
def the_time_of_a_session_counts_from_its_first_use(patch: Patch) -> None:
    expire = SessionTable._expire

    def early(self: SessionTable, record: SessionRecord) -> None:
        record.used_at = 0.0
        expire(self, record)

    patch.setattr(SessionTable, "_expire", early)


@bug("sessions are open, and")
def more_sessions_are_opened_than_may_be(patch: Patch) -> None:
    patch.setattr(SessionTable, "_refuse_if_full", lambda self: None)


@bug("is open after its block")
def a_session_outlives_its_block(patch: Patch) -> None:
    patch.setattr(SessionTable, "end", lambda self, record: None)


@bug("was left while")
def a_block_is_left_while_its_calls_run(patch: Patch) -> None:
    async def hurry(core: PoolCore, record: SessionRecord, why: str) -> None:
        core.stop_session(record, why)
        record.calls.clear()
        core.sessions.end(record)

    patch.setattr(_session, "end_session", hurry)


@bug("was refused with")
def an_id_stays_taken(patch: Patch) -> None:
    opened: set[tuple[SessionTable, str]] = set()
    open_session = SessionTable.open

    def once(self: SessionTable, session_id: str, *args: Any) -> SessionRecord:
        if (self, session_id) in opened:
            raise SessionBusyError(session_id, "was open already")
        opened.add((self, session_id))
        return open_session(self, session_id, *args)

    patch.setattr(SessionTable, "open", once)


@bug("left of sessions")
def a_worker_that_is_gone_is_still_counted(patch: Patch) -> None:
    remove, kept = Homes.remove, set[object]()

    def late(self: Homes, seat: Any) -> None:
        if seat in kept:  # it was looked for in vain
            remove(self, seat)
        kept.add(seat)

    patch.setattr(Homes, "remove", late)


# -- maps ----------------------------------------------------------------------------------------------


@bug("a map holds")
def a_map_reads_too_far_ahead(patch: Patch) -> None:
    make = Results.__init__

    def greedy(self: Results, *args: Any, limit: int, **kwargs: Any) -> None:
        make(self, *args, limit=limit + 1, **kwargs)

    patch.setattr(Results, "__init__", greedy)


@bug("is ordered, and gave")
def a_map_gives_its_results_as_they_come(patch: Patch) -> None:
    make = Results.__init__

    def unordered(self: Results, *args: Any, ordered: bool, **kwargs: Any) -> None:
        make(self, *args, ordered=False, **kwargs)

    patch.setattr(Results, "__init__", unordered)


@bug("these were never read")
def a_map_ends_before_its_last_result(patch: Patch) -> None:
    has_news, turns = Results._has_news, itertools.count()

    def hasty(self: Results) -> bool:
        if self._exhausted and not self._line and next(turns) % 3 == 0:
            self._held = 0
        return has_news(self)

    patch.setattr(Results, "_has_news", hasty)


@bug("or has been given")
def a_map_gives_a_result_twice(patch: Patch) -> None:
    take = Results._take

    async def again(self: Results) -> tuple[Any, Exception | None]:
        first = self._line[0]
        value, error = await take(self)
        if error is None and not hasattr(first, "given"):
            first.given = True  # type: ignore[union-attr]
            self._line.appendleft(first)
            self._held += 1
        return value, error

    patch.setattr(Results, "_take", again)


@bug("was left while")
def a_map_is_left_while_its_calls_run(patch: Patch) -> None:
    async def do_not_wait(self: Results) -> None:
        pass

    patch.setattr(Results, "_until_settled", do_not_wait)


@bug("left its input open")
def a_map_leaves_its_input_open(patch: Patch) -> None:
    async def leave(self: Any) -> None:
        pass

    patch.setattr(PlainInput, "aclose", leave)
    patch.setattr(AsyncInput, "aclose", leave)


@bug("gave")
def a_map_goes_on_after_an_error(patch: Patch) -> None:
    patch.setattr(Results, "_is_final", lambda self, error: False)


# -- inputs --------------------------------------------------------------------------------------------


@bug("is left open")
def an_input_is_left_open(patch: Patch) -> None:
    async def leave(self: Any) -> None:
        pass

    patch.setattr(AsyncInput, "aclose", leave)


@bug("items ahead")
def an_input_is_pulled_too_far_ahead(patch: Patch) -> None:
    grant = Pump.grant

    def generously(self: Pump, core: PoolCore, call: PendingCall, count: int) -> None:
        grant(self, core, call, count)
        self._credit += 4

    patch.setattr(Pump, "grant", generously)


@bug("is made again, and its input has been pulled")
def a_call_is_made_again_with_half_an_input(patch: Patch) -> None:
    grant = Pump.grant

    def keep_retries(self: Pump, core: PoolCore, call: PendingCall, count: int) -> None:
        retries = call.retries_left
        grant(self, core, call, count)
        call.retries_left = retries

    patch.setattr(Pump, "grant", keep_retries)


# -- host calls ----------------------------------------------------------------------------------------


@bug("while it is helped")
def a_call_does_not_wait_for_its_host_tools(patch: Patch) -> None:
    start = Attendants._start_in

    def elsewhere(self: Attendants, _nursery: Nursery, attendant: Attendant) -> None:
        assert self.core.nursery is not None
        start(self, self.core.nursery, attendant)

    patch.setattr(Attendants, "_start_in", elsewhere)


@bug("and is told")
def a_tool_gets_the_help_of_another(patch: Patch) -> None:
    answers: list[Any] = []

    def stale(value: object, **options: Any) -> Any:
        answers.append(encode_value(value, **options))
        return answers[-2:][0]

    patch.setattr("snakepit.pool._host_calls.encode_value", stale)


@bug("had not ended")
def a_host_call_in_the_caller_s_task_is_lost(patch: Patch) -> None:
    patch.setattr(HostCalls, "_serve_here", lambda *_: None)


@bug("for itself")
def a_call_waits_for_itself(patch: Patch) -> None:
    patch.setattr(_ancestry, "_could_wait", lambda *_, **__: True)


# -- progress, and values ------------------------------------------------------------------------------


@bug("updates")
def the_last_update_is_not_shown(patch: Patch) -> None:
    put = Feed.put

    def forget(self: Feed, update: Progress) -> None:
        if update.done != update.total:
            put(self, update)

    patch.setattr(Feed, "put", forget)


@bug("is told")
def an_update_is_shown_twice(patch: Patch) -> None:
    def keep(self: Feed) -> Progress | None:
        shown = getattr(self, "shown", None)
        self.shown = update = self._latest  # type: ignore[attr-defined]
        if update is not None and update is shown:
            self._latest = None
        return update

    patch.setattr(Feed, "take", keep)


@bug("the value is")
def a_large_value_is_cut(patch: Patch) -> None:
    def cut(body: Any, buffers: Buffers, **_: object) -> Any:
        value = decode_value(body, buffers)
        return (value[0], value[1][:65_000]) if isinstance(value, tuple) else value

    patch.setattr("snakepit.pool._codec.decode_value", cut)


# -- calls that kill ---------------------------------------------------------------------------------


@bug("is sent after")
def calls_in_line_are_not_looked_at_again(patch: Patch) -> None:
    patch.setattr(Suspects, "may_begin", lambda *_: True)


@bug("were seen")
def an_answer_does_not_clear_a_suspect(patch: Patch) -> None:
    patch.setattr(Suspects, "settled", lambda *_: None)


@bug("is sent after")
def a_retry_is_no_death(patch: Patch) -> None:
    buried = Suspects.buried

    def only_the_last(self: Suspects, worker: Worker, left: Any, others: Any, now: float) -> None:
        left = [call for call in left if not call.retries_left]
        buried(self, worker, left, others, now)

    patch.setattr(Suspects, "buried", only_the_last)


@pytest.mark.timeout(300)  # some are met in few of many runs
@pytest.mark.parametrize("name", BUGS)
def test_a_bug_is_found(name: str, monkeypatch: Patch) -> None:
    says, put_in = BUGS[name]
    check_found(name, put_in, monkeypatch, says=says)
