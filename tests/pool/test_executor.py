"""`as_executor()` keeps what `concurrent.futures.Executor` promises. Here from plain threads.

What an event loop's own thread may do with it is in `test_executor_async.py`.
"""

from __future__ import annotations

import concurrent.futures
import gc
import itertools
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    as_completed,
)
from pathlib import Path
from typing import Any

import functions
import pytest
from _backends import one_loop_each
from pool_kit import PATIENT, lines, run_script

import snakepit
from snakepit import (
    CrashBarrier,
    PoolClosedError,
    PoolSaturatedError,
    SerializationError,
    SyncPool,
    ToolError,
    WorkerDiedError,
)

pytestmark = one_loop_each

PATIENCE_S = 20.0
BACKENDS = ("trio", "asyncio")


@pytest.fixture(scope="module", params=BACKENDS)
def pool(request: pytest.FixtureRequest) -> Iterator[SyncPool]:
    with snakepit.open_pool_sync(size=2, min_ready=2, backend=request.param, stop=PATIENT) as pool:
        yield pool


@pytest.fixture
def executor(pool: SyncPool) -> Iterator[Executor]:
    executor: Any = pool.as_executor()
    assert isinstance(executor, Executor)
    yield executor
    executor.shutdown(wait=False)
    settled(list(executor._pending))


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


_held: list[Held] = []


@pytest.fixture(autouse=True)
def release_all() -> Iterator[None]:
    """A test that fails keeps no worker from the next one."""
    yield
    while _held:
        _held.pop().release()


class Held:
    """Every worker of the pool is kept busy until `release`, or the end of the test."""

    def __init__(self, executor: Executor, folder: Path, count: int = 2) -> None:
        self._open = folder / "open"
        _held.append(self)
        started = [folder / f"started {number}" for number in range(count)]
        self.futures = [
            executor.submit(functions.hold, str(path), str(self._open), number)
            for number, path in enumerate(started)
        ]
        until(lambda: all(path.exists() for path in started))

    def release(self) -> None:
        self._open.touch()


@pytest.fixture
def held(executor: Executor, tmp_path: Path) -> Held:
    return Held(executor, tmp_path)


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.003)


def settled(futures: list[Future[Any]]) -> None:
    done, _ = concurrent.futures.wait(futures, timeout=PATIENCE_S)
    assert done == set(futures)


# -- submit ----------------------------------------------------------------------------------


def test_arguments_of_every_kind_reach_the_function(executor: Any) -> None:
    """Also those that are named like the parameters of `submit` itself."""
    future = executor.submit(functions.capture, 1, [2], self=3, fn=4)
    assert isinstance(future, Future)
    assert future.result(PATIENCE_S) == ((1, [2]), {"self": 3, "fn": 4})
    assert executor.submit(lambda number: -number, 5).result(PATIENCE_S) == -5
    for wrong in ({"fn": functions.capture, "arg": 1}, {"arg": 1}, {}):
        with pytest.raises(TypeError):
            executor.submit(**wrong)


def test_arguments_are_those_of_the_moment_of_submit(executor: Executor, held: Held) -> None:
    values = [1, 2]
    future = executor.submit(functions.append, values)
    values.clear()
    held.release()
    assert future.result(PATIENCE_S) == [1, 2, 3]


def test_a_future_tells_its_state(executor: Executor, held: Held) -> None:
    """Waiting, running, done; `result` and `exception` wait no longer than they may."""
    running, waiting = held.futures[0], executor.submit(functions.pid)
    assert (running.running(), running.done(), running.cancelled()) == (True, False, False)
    assert (waiting.running(), waiting.done(), waiting.cancelled()) == (False, False, False)
    for wait in (running.result, running.exception, waiting.result):
        with pytest.raises(TimeoutError):
            wait(0.01)
    with pytest.raises(TimeoutError):
        running.result(0)
    held.release()
    assert running.result(PATIENCE_S) == 0
    assert waiting.exception(PATIENCE_S) is None
    assert (running.running(), running.done(), running.cancelled()) == (False, True, False)


# -- exceptions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad", 3),
        functions.Custom("mine", 5),
        functions.Falsey("counts all the same"),
        StopIteration(4),
        CancelledError("by hand"),
        TimeoutError("its own"),
        SystemExit(4),
        KeyboardInterrupt("there"),
        GeneratorExit(),
        BaseExceptionGroup("both", [ValueError(1), KeyboardInterrupt()]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_the_function_raises_arrives_as_itself(
    executor: Executor, error: BaseException
) -> None:
    """With the worker's traceback as a note. The worker lives on."""
    future = executor.submit(functions.fail, error)
    raised = future.exception(PATIENCE_S)
    assert type(raised) is type(error)
    assert raised is not None
    assert str(raised) == str(error)
    [note] = raised.__notes__
    assert "in a worker of the pool" in note
    assert "in fail" in note
    with pytest.raises(type(error)) as caught:
        future.result()
    assert caught.value is raised
    assert executor.submit(functions.double, 2).result(PATIENCE_S) == 4


def test_an_exception_brings_the_chain_of_its_causes(executor: Executor) -> None:
    error = executor.submit(functions.fail_with_causes, 2).exception(PATIENCE_S)
    for depth in (2, 1, 0):
        assert isinstance(error, functions.Custom)
        assert error.number == depth
        error = error.__cause__
    assert isinstance(error, KeyError)
    assert error.__cause__ is None


def test_what_pickle_cannot_carry_is_told_by_the_future(executor: Executor) -> None:
    """Not by `submit`, and never by a future that stays silent."""
    for future, kind in [
        (executor.submit(functions.fail_unpicklably), ToolError),
        (executor.submit(functions.make_lambda), SerializationError),
        (executor.submit(functions.count_to, 3), SerializationError),
        (executor.submit(id, (number for number in ())), SerializationError),
        (executor.submit(functions.an_async_one), TypeError),
        (executor.submit(functions.AsyncCallable()), SerializationError),
        (executor.submit(3), TypeError),
    ]:
        assert isinstance(future.exception(PATIENCE_S), kind)
        assert future.done()


# -- cancel ----------------------------------------------------------------------------------


def test_a_waiting_future_can_be_cancelled_and_its_function_never_runs(
    executor: Executor, held: Held, tmp_path: Path
) -> None:
    log = str(tmp_path / "log")
    called: list[Future[Any]] = []
    futures = [executor.submit(functions.note, log, str(number)) for number in range(4)]
    futures[1].add_done_callback(called.append)
    assert [futures[1].cancel(), futures[1].cancel()] == [True, True]
    assert called == [futures[1]]
    assert (futures[1].cancelled(), futures[1].done()) == (True, True)
    with pytest.raises(CancelledError):
        futures[1].result()
    with pytest.raises(CancelledError):
        futures[1].exception()
    settled(futures[1:2])  # `wait` hears of it although no worker is free
    held.release()
    settled(futures)
    assert sorted(lines(Path(log))) == ["0", "2", "3"]


def test_a_future_that_runs_or_is_done_cannot_be_cancelled(executor: Executor, held: Held) -> None:
    assert held.futures[0].cancel() is False
    held.release()
    assert held.futures[0].result(PATIENCE_S) == 0
    assert held.futures[0].cancel() is False
    assert not held.futures[0].cancelled()


def test_no_future_runs_before_a_worker_is_free_for_it(
    pool: SyncPool, executor: Executor, tmp_path: Path
) -> None:
    """Short calls are no reason to send others ahead: what waits can be cancelled."""
    for attempt in range(5):
        for _ in range(50):
            pool.run_sync(functions.pid)
        go_on = tmp_path / f"go on {attempt}"
        paths = [str(tmp_path / f"started {attempt} {number}") for number in range(2)]
        held = [executor.submit(functions.hold, path, str(go_on)) for path in paths]
        waiting = [executor.submit(functions.pid) for _ in range(20)]
        until(lambda paths=paths: all(map(os.path.exists, paths)))
        running = [future for future in waiting if future.running()]
        cancelled = [future for future in waiting if future.cancel()]
        go_on.touch()
        settled(held)
        assert (running, cancelled) == ([], waiting)


@pytest.mark.parametrize("seed", range(3))
def test_cancels_that_race_with_the_start_never_tear_a_future(
    executor: Executor, tmp_path: Path, seed: int
) -> None:
    """Each is either cancelled and never ran, or ran once and has its value."""
    log = tmp_path / "log"
    choices = random.Random(seed)
    futures = [executor.submit(functions.note, str(log), str(number)) for number in range(200)]
    refused = set()

    def cancel_some(chosen: list[int]) -> None:
        for number in chosen:
            if not futures[number].cancel():
                refused.add(number)

    order = choices.sample(range(200), 150)
    threads = [threading.Thread(target=cancel_some, args=(order[at::3],)) for at in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    settled(futures)
    ran = [int(line) for line in lines(log)]
    cancelled = {number for number in range(200) if futures[number].cancelled()}
    assert cancelled == set(order) - refused
    assert sorted(ran) == sorted(set(range(200)) - cancelled)
    assert all(futures[number].result() == str(number) for number in ran)


# -- callbacks -------------------------------------------------------------------------------


def test_callbacks_run_in_order_and_may_submit(executor: Executor) -> None:
    called: list[Any] = []
    future = executor.submit(functions.double, 2)
    for number in range(3):
        future.add_done_callback(lambda future, number=number: called.append((number, future)))
    more: list[Future[int]] = []
    future.add_done_callback(lambda _: more.append(executor.submit(functions.double, 3)))
    until(lambda: more)
    assert called == [(number, future) for number in range(3)]
    assert more[0].result(PATIENCE_S) == 6
    future.add_done_callback(called.append)
    assert called[-1] is future  # it is done: at once, in this thread


def test_a_callback_that_raises_harms_nobody(
    executor: Executor, held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it raises: it is logged, and other futures get their values."""
    future = held.futures[0]
    called: list[Any] = []

    def fail(error: BaseException) -> Callable[[object], None]:
        def callback(_: object) -> None:
            called.append(error)
            raise error

        return callback

    with caplog.at_level(logging.ERROR):
        future.add_done_callback(fail(ValueError("first")))
        future.add_done_callback(fail(SystemExit(3)))
        held.release()
        assert future.result(PATIENCE_S) == 0
        until(lambda: len(called) == 2)
        assert executor.submit(functions.double, 4).result(PATIENCE_S) == 8
    assert sum("callback" in record.message for record in caplog.records) == 2


def test_a_callback_that_waits_for_another_future_is_told_that_it_cannot(
    executor: Executor, tmp_path: Path
) -> None:
    """It runs in the loop's thread: the wait would never end."""
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    one, other = (Held(executor, folder, count=1) for folder in folders)
    raised: list[BaseException] = []

    def wait(_: object) -> None:
        try:
            other.futures[0].result()
        except RuntimeError as error:
            raised.append(error)

    one.futures[0].add_done_callback(wait)
    one.release()
    until(lambda: raised)
    assert "would wait for itself for ever" in str(raised[0])
    other.release()
    assert other.futures[0].result(PATIENCE_S) == 0


# -- wait and as_completed -------------------------------------------------------------------


def test_wait_returns_at_the_first_at_the_first_error_and_at_all(
    executor: Executor, tmp_path: Path
) -> None:
    held = Held(executor, tmp_path, count=1)
    [slow] = held.futures
    quick = executor.submit(functions.double, 1)
    done, rest = concurrent.futures.wait([slow, quick], PATIENCE_S, FIRST_COMPLETED)
    assert (done, rest) == ({quick}, {slow})
    fine, bad = executor.submit(functions.double, 1), executor.submit(divmod, 1, 0)
    done, rest = concurrent.futures.wait([slow, fine, bad], PATIENCE_S, FIRST_EXCEPTION)
    assert (done, rest) == ({fine, bad}, {slow})
    done, rest = concurrent.futures.wait([slow, quick, slow], 0.01, ALL_COMPLETED)
    assert (done, rest) == ({quick}, {slow})
    held.release()
    done, rest = concurrent.futures.wait([slow, quick, slow], PATIENCE_S)
    assert (done, rest) == ({slow, quick}, set())


def test_as_completed_yields_each_future_once_when_it_is_done(
    executor: Executor, tmp_path: Path
) -> None:
    held = Held(executor, tmp_path, count=1)
    [slow] = held.futures
    others = [executor.submit(functions.double, number) for number in range(5)]
    cancelled = executor.submit(functions.double, 5)
    cancelled.cancel()
    coming = as_completed([slow, *others, *others, cancelled], timeout=PATIENCE_S)
    first = list(itertools.islice(coming, 6))
    assert set(first) == {*others, cancelled} - ({cancelled} if slow in first else set())
    held.release()
    assert list(coming) == [slow]


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_as_completed_yields_what_is_done_and_then_times_out(
    executor: Executor, tmp_path: Path, timeout: float
) -> None:
    held = Held(executor, tmp_path, count=1)
    done = executor.submit(functions.double, 1)
    settled([done])
    completed = []
    with pytest.raises(TimeoutError):
        for future in as_completed([done, *held.futures], timeout=timeout):
            completed.append(future)  # noqa: PERF402 - the loop is what raises
    assert completed == [done]
    held.release()


# -- map -------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [1, 3, 10, 50])
def test_map_gives_values_in_order_in_chunks_of_any_size(
    executor: Executor, chunksize: int
) -> None:
    powers = list(map(pow, range(10), range(10)))
    assert list(executor.map(pow, range(10), range(10), chunksize=chunksize)) == powers
    assert list(executor.map(pow, range(10), range(3), chunksize=chunksize)) == powers[:3]
    assert list(executor.map(pow, [], [], chunksize=chunksize)) == []
    assert list(executor.map(pow, chunksize=chunksize)) == []


def test_chunks_save_trips(pool: SyncPool, executor: Executor) -> None:
    before = pool.stats().requests
    assert list(executor.map(abs, range(100), chunksize=30)) == list(range(100))
    assert pool.stats().requests - before == 4


def test_map_takes_its_input_and_runs_although_nobody_iterates(
    executor: Executor, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    source = iter([str(log)] * 10)
    results = executor.map(functions.note, source)
    assert list(source) == []
    executor.shutdown()
    assert len(lines(log)) == 10
    assert list(results) == ["ran"] * 10


def test_map_with_a_buffer_takes_no_more_than_fits(executor: Any) -> None:
    """So its input may be endless."""
    source = itertools.count()
    results: Any = executor.map(abs, source, buffersize=4)
    assert next(source) == 4
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert next(source) == 8  # the first value made room for one, and so on
    results.close()
    chunks: Any = executor.map(abs, itertools.count(), chunksize=5, buffersize=2)
    assert list(itertools.islice(chunks, 12)) == list(range(12))
    chunks.close()
    assert list(executor.map(abs, range(3), buffersize=10)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"chunksize": 0}, ValueError),
        ({"chunksize": -1}, ValueError),
        ({"buffersize": 0}, ValueError),
        ({"buffersize": -1}, ValueError),
        ({"buffersize": "foo"}, TypeError),
        ({"buffersize": 2.0}, TypeError),
    ],
)
def test_map_refuses_wrong_sizes_before_it_takes_anything(
    executor: Executor, wrong: dict[str, Any], error: type[Exception]
) -> None:
    source = iter([1])
    with pytest.raises(error):
        executor.map(abs, source, **wrong)
    assert next(source) == 1


def test_map_raises_where_the_value_would_be_and_cancels_the_rest(
    executor: Executor, held: Held, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    results = executor.map(divmod, [5, 5, 5], [1, 0, 2])
    last = executor.map(functions.note, [str(log)] * 20)
    held.release()
    assert next(results) == (5, 0)
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []
    assert list(last) == ["ran"] * 20


def test_map_times_out_from_the_call_on_and_cancels_the_rest(
    executor: Executor, held: Held, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    results = executor.map(functions.note, [str(log)] * 5, timeout=0.05)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        next(results)
    assert time.monotonic() - started < PATIENCE_S / 2
    assert list(results) == []
    held.release()
    executor.shutdown()
    assert lines(log) == []


def test_a_map_left_early_cancels_what_waits(executor: Executor, tmp_path: Path) -> None:
    started = [tmp_path / f"started {number}" for number in range(5)]
    now, later = tmp_path / "now", tmp_path / "later"
    now.touch()
    ways = [str(now), *[str(later)] * 4]  # two workers: the last two calls cannot begin
    results: Any = executor.map(functions.hold, map(str, started), ways, range(5))
    assert next(results) == 0
    results.close()
    later.touch()
    executor.shutdown()
    assert [path.exists() for path in started[3:]] == [False, False]


def test_input_that_raises_leaves_nothing_of_a_map_behind(
    executor: Executor, held: Held, tmp_path: Path
) -> None:
    log = tmp_path / "log"

    def source() -> Iterator[str]:
        yield str(log)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        executor.map(functions.note, source())
    held.release()
    executor.shutdown()
    assert lines(log) == []


def test_map_refuses_an_async_function(executor: Executor) -> None:
    with pytest.raises(TypeError, match="is async"):
        executor.map(functions.an_async_one)


# -- shutdown --------------------------------------------------------------------------------


def test_after_shutdown_nothing_is_taken_and_the_pool_serves_on(pool: SyncPool) -> None:
    executor, other = pool.as_executor(), pool.as_executor()
    for _ in range(2):
        executor.shutdown()
    executor.shutdown(wait=False, cancel_futures=True)
    for refused in (
        lambda: executor.submit(pow, 2, 5),
        lambda: executor.submit(lambda: (yield)),
        lambda: executor.map(abs, [1]),
    ):
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            refused()
    assert other.submit(pow, 2, 5).result(PATIENCE_S) == 32
    assert pool.run_sync(pow, 2, 5) == 32
    assert "shut down: 0 pending" in repr(executor)
    assert "open: 0 pending" in repr(other)


def test_shutdown_waits_for_what_was_submitted(pool: SyncPool, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pool.as_executor() as executor:
        futures = [executor.submit(functions.note, str(log)) for _ in range(50)]
    assert all(future.done() for future in futures)
    assert len(lines(log)) == 50


def test_shutdown_without_waiting_returns_at_once_and_all_is_done(
    pool: SyncPool, tmp_path: Path
) -> None:
    executor = pool.as_executor()
    held = Held(executor, tmp_path)
    waiting = executor.submit(functions.double, 2)
    executor.shutdown(wait=False)
    assert not waiting.done()
    held.release()
    assert waiting.result(PATIENCE_S) == 4
    assert held.futures[1].result(PATIENCE_S) == 1


@pytest.mark.parametrize("wait", [True, False])
def test_shutdown_may_cancel_what_waits_and_lets_finish_what_runs(
    pool: SyncPool, tmp_path: Path, wait: bool
) -> None:
    log = tmp_path / "log"
    executor = pool.as_executor()
    held = Held(executor, tmp_path)
    waiting = [executor.submit(functions.note, str(log)) for _ in range(10)]
    if wait:
        threading.Timer(0.1, held.release).start()
    executor.shutdown(wait, cancel_futures=True)
    assert all(future.cancelled() for future in waiting)
    assert all(future.done() for future in held.futures) is wait
    held.release()
    assert [future.result(PATIENCE_S) for future in held.futures] == [0, 1]
    settled(waiting)
    assert lines(log) == []


def test_what_a_free_worker_could_have_had_is_not_cancelled_by_shutdown(pool: SyncPool) -> None:
    """However soon it comes: the first calls of a burst run."""
    executor = pool.as_executor()
    futures = [executor.submit(functions.nap, 0.2) for _ in range(20)]
    executor.shutdown(cancel_futures=True)
    assert all(future.done() for future in futures)
    assert 2 <= sum(not future.cancelled() for future in futures) < 20


def test_several_threads_may_shut_down_at_once(pool: SyncPool, tmp_path: Path) -> None:
    executor = pool.as_executor()
    held = Held(executor, tmp_path)
    threads = [threading.Thread(target=executor.shutdown) for _ in range(4)]
    for thread in threads:
        thread.start()
    held.release()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert all(future.done() for future in held.futures)


# -- many of them ----------------------------------------------------------------------------


def test_thousands_of_submits_from_many_threads_all_get_their_own_answer(
    executor: Executor,
) -> None:
    """2,000 from 8 threads, while the futures before them complete."""
    answers: dict[int, int] = {}
    failures: list[BaseException] = []

    def ask(thread: int) -> None:
        try:
            numbers = range(thread * 250, thread * 250 + 250)
            asked = {executor.submit(functions.double, number): number for number in numbers}
            for future in as_completed(asked, timeout=PATIENCE_S * 2):
                answers[asked[future]] = future.result()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert answers == {number: 2 * number for number in range(2000)}


def test_submits_that_race_with_shutdown_are_refused_or_done(pool: SyncPool) -> None:
    """No future is lost in between."""
    for _ in range(10):
        executor = pool.as_executor()
        futures: list[Future[int]] = []

        def submit(executor: Executor = executor, futures: list[Future[int]] = futures) -> None:
            try:
                while True:
                    futures.append(executor.submit(abs, -1))
                    time.sleep(0)
            except RuntimeError:
                pass

        threads = [threading.Thread(target=submit) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda futures=futures: futures)
        executor.shutdown()
        for thread in threads:
            thread.join()
        assert futures
        assert all(future.done() and future.result() == 1 for future in futures)


def test_a_submit_under_way_is_waited_for_by_shutdown(
    pool: SyncPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor: Any = pool.as_executor()
    under_way = threading.Event()
    futures: list[Future[None]] = []
    refuse_if_shut = executor._desk.refuse_if_shut

    def slow() -> None:
        under_way.set()
        time.sleep(0.1)
        refuse_if_shut()

    monkeypatch.setattr(executor._desk, "refuse_if_shut", slow)
    thread = threading.Thread(target=lambda: futures.append(executor.submit(functions.nap, 0.1)))
    thread.start()
    assert under_way.wait(PATIENCE_S)
    executor.shutdown()
    thread.join()
    assert futures[0].done()


def error_of(executor: Executor) -> BaseException:
    try:
        executor.submit(functions.fail, functions.Custom("brief", 1)).result(PATIENCE_S)
    except functions.Custom as error:
        return error
    raise AssertionError


def test_arguments_and_values_are_let_go(executor: Executor, held: Held) -> None:
    """Arguments as soon as they are sent or waiting, values with their futures; without the collector."""
    gc.disable()
    try:
        argument = functions.Something()
        gone = weakref.ref(argument)
        future = executor.submit(argument.touch)
        del argument
        assert gone() is None
        held.release()
        assert future.result(PATIENCE_S) is None
        for value in executor.map(functions.something, range(10)):
            gone = weakref.ref(value)
            del value
            assert gone() is None
        future = executor.submit(functions.something, 10)
        gone = weakref.ref(future.result(PATIENCE_S))
        gone_future = weakref.ref(future)
        del future
        until(lambda: gone() is None and gone_future() is None)
        gone = weakref.ref(error_of(executor))
        assert gone() is None
    finally:
        gc.enable()


# -- the pool behind it ----------------------------------------------------------------------


def test_a_dead_worker_costs_its_future_and_no_other(backend: str, tmp_path: Path) -> None:
    """The pool replaces it, so nothing is broken."""
    with (
        snakepit.open_pool_sync(size=1, min_ready=1, backend=backend) as pool,
        pool.as_executor() as executor,
    ):
        futures = [executor.submit(functions.leave, 5)]
        futures += [executor.submit(functions.double, number) for number in range(5)]
        error = futures[0].exception(PATIENCE_S)
        assert isinstance(error, WorkerDiedError)
        assert error.exit_code == 5
        assert [future.result(PATIENCE_S) for future in futures[1:]] == [0, 2, 4, 6, 8]


def test_a_pool_that_is_left_ends_every_future(backend: str, tmp_path: Path) -> None:
    """Running ones are stopped, waiting ones never run; threads that wait for them go on."""
    heard: list[BaseException | None] = []
    with snakepit.open_pool_sync(size=1, min_ready=1, backend=backend, stop=PATIENT) as pool:
        executor = pool.as_executor()
        held = Held(executor, tmp_path, count=1)
        futures = [*held.futures, *(executor.submit(functions.pid) for _ in range(100))]
        threads = [
            threading.Thread(target=lambda future=future: heard.append(future.exception()))
            for future in futures[:3]
        ]
        for thread in threads:
            thread.start()
    assert all(future.done() for future in futures)
    assert all(isinstance(future.exception(), PoolClosedError) for future in futures)
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(heard) == 3
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown") as caught:
        executor.submit(pow, 2, 2)
    assert isinstance(caught.value.__cause__, PoolClosedError)
    executor.shutdown(cancel_futures=True)
    with pytest.raises(PoolClosedError):
        pool.as_executor()


def test_submits_that_race_with_the_end_of_the_pool_end(backend: str) -> None:
    futures: list[Future[int]] = []

    def submit(executor: Executor) -> None:
        try:
            while True:
                futures.append(executor.submit(abs, -1))
                time.sleep(0)
        except RuntimeError:
            pass

    with snakepit.open_pool_sync(size=1, min_ready=1, backend=backend) as pool:
        threads = [threading.Thread(target=submit, args=(pool.as_executor(),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: futures)
        time.sleep(0.05)
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert futures
    settled(futures)
    errors = {type(future.exception()) for future in futures}
    assert errors <= {type(None), PoolClosedError}


def test_a_full_queue_refuses_by_the_future(backend: str, tmp_path: Path) -> None:
    with (
        snakepit.open_pool_sync(
            size=1, min_ready=1, backend=backend, queue=snakepit.Queue(max_size=3)
        ) as pool,
        pool.as_executor() as executor,
    ):
        held = Held(executor, tmp_path, count=1)
        futures = []
        for _ in range(10):
            futures.append(executor.submit(functions.pid))
            time.sleep(0.01)
        until(lambda: sum(future.done() for future in futures) == 7)
        assert [future.done() for future in futures] == [False] * 3 + [True] * 7
        assert all(isinstance(f.exception(), PoolSaturatedError) for f in futures[3:])
        assert pool.stats().saturated == 7
        assert futures[0].cancel()
        until(lambda: pool.stats().queued == 2)
        more = executor.submit(functions.pid)
        held.release()
        assert more.result(PATIENCE_S) == futures[1].result(PATIENCE_S)


@pytest.mark.blocking_ok("it blocks the loop on purpose")
def test_a_loop_that_is_blocked_keeps_no_more_than_the_queue_may_hold(
    backend: str, tmp_path: Path
) -> None:
    """What has not reached the loop counts as waiting: refused at once, and counted."""
    with (
        snakepit.open_pool_sync(
            size=1, min_ready=1, backend=backend, queue=snakepit.Queue(max_size=3)
        ) as pool,
        pool.as_executor() as executor,
    ):
        blocked, go_on = threading.Event(), threading.Event()

        def block(_: object) -> None:
            blocked.set()
            go_on.wait(PATIENCE_S)

        first = executor.submit(functions.nap, 0.05)
        first.add_done_callback(block)
        assert blocked.wait(PATIENCE_S)
        futures = [executor.submit(functions.double, number) for number in range(50)]
        refused = [future for future in futures if future.done()]
        assert len(refused) == 46
        assert all(isinstance(future.exception(), PoolSaturatedError) for future in refused)
        go_on.set()
        assert [future.result(PATIENCE_S) for future in futures[:4]] == [0, 2, 4, 6]
        assert pool.stats().saturated == 46


def test_a_broken_pool_breaks_its_executor(backend: str) -> None:
    """What waited gets the pool's error; more is refused with BrokenExecutor."""
    barrier = CrashBarrier(max_restarts=0)
    with snakepit.open_pool_sync(
        size=1, min_ready=1, backend=backend, crash_barrier=barrier
    ) as pool:
        executor = pool.as_executor()
        futures = [executor.submit(functions.leave, 3) for _ in range(50)]
        settled(futures)
        kinds = [type(future.exception()) for future in futures]
        assert kinds[0] is WorkerDiedError
        assert kinds[-1] is snakepit.PoolBrokenError
        assert kinds == sorted(kinds, key=lambda kind: kind is not WorkerDiedError)
        with pytest.raises(BrokenExecutor, match="fruitless"):
            executor.submit(functions.pid)


def test_a_pool_of_foreign_workers_has_no_executor(backend: str) -> None:
    command = [sys.executable, "-m", "snakepit.worker", "adapters:Tools"]
    with (
        snakepit.open_pool_sync(
            command=command,
            size=1,
            min_ready=0,
            backend=backend,
            env={"PYTHONPATH": ":".join(sys.path)},
        ) as pool,
        pytest.raises(PermissionError, match="opened with a command"),
    ):
        pool.as_executor()


# -- whole programs --------------------------------------------------------------------------

MAIN_FUNCTIONS = """
import concurrent.futures, snakepit

class Box:
    def __init__(self, value): self.value = value

def unpack(box, factor=1):
    return Box(box.value * factor)

if __name__ == "__main__":
    with snakepit.open_pool_sync(size=2) as pool, pool.as_executor() as executor:
        boxes = list(executor.map(unpack, map(Box, range(4)), chunksize=2))
        box = executor.submit(unpack, Box(21), factor=2).result()
        print([type(box) is Box for box in boxes], box.value, executor.submit(lambda: 5).result())
"""


def test_functions_of_a_guarded_script_work(tmp_path: Path) -> None:
    result = run_script(tmp_path, MAIN_FUNCTIONS)
    expected = "[True, True, True, True] 42 5\n"
    assert (result.stdout, result.returncode) == (expected, 0), result.stderr


NEVER_LEFT = """
import os, sys, threading, time, snakepit

def late(path, text):
    time.sleep(0.5)
    open(path, "a").write(text)

if __name__ == "__main__":
    block = snakepit.open_pool_sync(size=1, backend="{backend}")
    pool = block.__enter__()
    for text in "abc":
        pool.as_executor().submit(late, "{path}", text)
    if os.fork() == 0:
        threading._shutdown()  # as multiprocessing does before its os._exit
        os._exit(7)
    print(os.waitstatus_to_exitcode(os.wait()[1]), pool.workers()[0].pid)
"""


def test_a_program_ends_with_its_futures_done_although_it_never_left_the_pool(
    backend: str, tmp_path: Path
) -> None:
    """It does not hang, nor does a forked child; no worker is left."""
    path = tmp_path / "late"
    result = run_script(tmp_path, NEVER_LEFT.format(backend=backend, path=path))
    assert (result.stderr, result.returncode) == ("", 0)
    child, pid = result.stdout.split()
    assert child == "7"
    assert path.read_text() == "abc"
    assert not os.path.exists(f"/proc/{pid}")


INTERRUPTED = """
import signal, sys, time, snakepit

def sleep(path):
    open(path, "w").close()
    time.sleep(600)

if __name__ == "__main__":
    with snakepit.open_pool_sync(size=1, backend="{backend}") as pool:
        executor = pool.as_executor()
        futures = [executor.submit(sleep, "{path}") for _ in range(3)]
        try:
            futures[0].result()
        except KeyboardInterrupt:
            print("interrupted", futures[0].running(), futures[2].cancel())
    print([type(future.exception()).__name__ for future in futures[:2]])
"""


def test_ctrl_c_interrupts_the_wait_and_the_pools_end_stops_the_function(
    backend: str, tmp_path: Path
) -> None:
    script, path = tmp_path / "script.py", tmp_path / "sleeps"
    script.write_text(INTERRUPTED.format(backend=backend, path=path))
    root = str(Path(snakepit.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    ) as process:
        until(path.exists)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=PATIENCE_S)
    assert out == "interrupted True True\n['PoolClosedError', 'PoolClosedError']\n"
    assert process.returncode == 0
