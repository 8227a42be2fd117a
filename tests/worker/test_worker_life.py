"""A worker begins once, ends once, in bounds, and no misdeed of a tool ends it earlier."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest
from _leaks import unmeasured_env
from worker_kit import ARGV, Worker, WorkerEndedError, start_message, worker_env

from snakepit.protocol import (
    Cancel,
    Credit,
    Failure,
    Goodbye,
    Hello,
    Ready,
    Settled,
    Shutdown,
    encode_message,
    frame,
)

BORN = ["constructed", "initialized"]
GONE_S = 5.0  # for a worker that nothing holds up, on a busy machine

# A worker whose patience with what does not stop is short.
HASTY_MAIN = """\
import sys
from snakepit.worker import _reader
from snakepit.worker.__main__ import main
_reader.ORPHAN_GRACE_S = 0.3
sys.exit(main([]))
"""
HASTY = (sys.executable, "-P", "-c", HASTY_MAIN)

# A worker that has a bug where a call's outcome is written.
BUGGY_MAIN = """\
import sys
from snakepit.worker._execution import Execution
from snakepit.worker.__main__ import main
def finish(*_):
    raise RuntimeError("a bug")
Execution.finish = finish
sys.exit(main([]))
"""
BUGGY = (sys.executable, "-P", "-c", BUGGY_MAIN)

# How a worker learns that it is to end, without Shutdown.
ENDINGS = ("SIGTERM", "EOF")


def end(worker: Worker, how: str) -> None:
    if how == "EOF":
        worker.hang_up()
    else:
        worker.send_signal(signal.SIGTERM)


# -- the orderly end -----------------------------------------------------------------------------


def test_initialize_runs_once_before_ready_and_cleanup_once_at_the_end() -> None:
    with Worker("mortal_adapters:Mortal") as worker:
        worker.wait_line("initialized")
        for number in range(3):
            assert worker.call("echo", {"value": number}) == number
        assert worker.lines == BORN
        assert worker.shut_down() == 0
        assert worker.lines == [*BORN, "cleaned up"]


def test_shutdown_lets_what_is_queued_finish_first() -> None:
    """Calls sent before it are served; Goodbye is the last message, then the pipe ends."""
    with Worker("mortal_adapters:Mortal") as worker:
        calls = [worker.call_message("echo", {"value": number}) for number in range(3)]
        worker.send(*calls, Shutdown(5.0))
        assert [worker.value_of(call.id) for call in calls] == [0, 1, 2]
        assert worker.receive() == Goodbye()
        with pytest.raises(WorkerEndedError):
            worker.receive()
        assert worker.wait_exit() == 0


def test_hello_tells_version_and_pid_and_ready_tells_the_tools() -> None:
    with Worker(start=False) as worker:
        hello = worker.expect(Hello)
        assert (hello.version, hello.pid) == (1, worker.pid)
        worker.send(start_message("mortal_adapters:Mortal"))
        ready = worker.expect(Ready)
        assert {tool.name: tool.streaming for tool in ready.tools}["stream"] is True
        assert {tool.name: tool.streaming for tool in ready.tools}["echo"] is False


def test_the_adapter_gets_its_arguments_and_calls_may_follow_start_at_once() -> None:
    """What the host sends before Ready waits; here Start, a call and Shutdown in one write."""
    with Worker(start=False) as worker:
        worker.expect(Hello)
        start = start_message("mortal_adapters:FailingHooks", ("nowhere", "nothing"))
        call = worker.call_message("echo", {"value": 1})
        worker.send(start, call, Shutdown(5.0))
        worker.expect(Ready)
        assert worker.value_of(call.id) == 1
        assert worker.receive() == Goodbye()
        assert worker.wait_exit() == 0
        assert worker.lines == ["in __init__", "in initialize", "in cleanup"]


def test_the_adapter_may_be_named_on_the_command_line() -> None:
    """For a worker behind a remote shell: the argument counts, not what Start names."""
    with Worker("no.such:Adapter", argv=(*ARGV, "mortal_adapters:Mortal")) as worker:
        assert worker.call("echo", {"value": 1}) == 1


@pytest.mark.parametrize("arguments", [["--help"], ["-x", "a:B"], ["a:B", "c:D"]])
def test_unknown_arguments_are_a_usage_error(arguments: list[str]) -> None:
    """Nothing is written to stdout, where a host would take it for a frame."""
    with Worker(start=False, argv=(*ARGV, *arguments)) as worker:
        assert worker.wait_exit() == 2
        with pytest.raises(WorkerEndedError):
            worker.receive()
        assert len(worker.lines) == 1
        assert worker.lines[0].startswith(
            "snakepit worker: usage: python -m snakepit.worker [ADAPTER]"
        )


# -- without Shutdown ----------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_idle_worker_cleans_up_and_exits(ending: str) -> None:
    with Worker("mortal_adapters:Mortal") as worker:
        assert worker.call("echo", {"value": 1}) == 1
        end(worker, ending)
        code = worker.wait_exit(GONE_S)
        assert worker.lines == [*BORN, "cleaned up"]
        assert code == (0 if ending == "SIGTERM" else 1)  # 1: its Goodbye reached nobody


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_worker_whose_tool_sleeps_interrupts_it_cleans_up_and_exits(ending: str) -> None:
    with Worker("mortal_adapters:Mortal") as worker:
        worker.begin("sleep")
        worker.begin("sleep")  # waits, and never begins
        worker.wait_line("running")
        end(worker, ending)
        worker.wait_exit(GONE_S)
        assert worker.lines == [*BORN, "running", "interrupted", "cleaned up"]


def test_a_call_that_sigterm_ends_is_not_answered() -> None:
    """Nobody asked for its end: the host learns of it by the worker's, which is an orderly one."""
    with Worker("mortal_adapters:Mortal") as worker:
        worker.begin("sleep")
        worker.wait_line("running")
        worker.send_signal(signal.SIGTERM)
        assert worker.receive() == Goodbye()
        with pytest.raises(WorkerEndedError):
            worker.receive()
        assert worker.wait_exit(GONE_S) == 0
        assert worker.lines == [*BORN, "running", "interrupted", "cleaned up"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_worker_whose_generator_waits_for_credit_closes_it_and_exits(ending: str) -> None:
    with Worker("mortal_adapters:Mortal") as worker:
        call = worker.begin("stream", window=1)
        assert worker.items_of(call, 1) == [0]
        worker.wait_line("running")
        end(worker, ending)
        worker.wait_exit(GONE_S)
        assert worker.lines == [*BORN, "running", "closed", "cleaned up"]


def test_a_worker_that_writes_to_a_host_that_dies_exits() -> None:
    """It is blocked in a full pipe when the reader goes."""
    with Worker("mortal_adapters:Mortal") as worker:
        worker.begin("large", {"nbytes": 3 * 2**20})
        worker.wait_full_pipe()
        worker.hang_up()
        worker.wait_exit(GONE_S)
        assert worker.lines == [*BORN, "running", "cleaned up"]


@pytest.mark.parametrize("where", ["a tool", "cleanup"])
def test_what_does_not_stop_is_ended_with_its_orphaned_worker(where: str) -> None:
    """Host gone, and user code that goes on for ever: the process ends all the same."""
    adapter, args = "mortal_adapters:Mortal", tuple[str, ...]()
    if where == "cleanup":
        adapter, args = "mortal_adapters:FailingHooks", ("cleanup", "hang")
    with Worker(adapter, adapter_args=args, argv=HASTY) as worker:
        if where == "a tool":
            worker.begin("never_stop")
            worker.wait_line("running")
        started = time.monotonic()
        worker.hang_up()
        assert worker.wait_exit(GONE_S) == 70
        assert time.monotonic() - started >= 0.3


def test_the_patience_with_what_does_not_stop_is_bounded() -> None:
    """The figure that the test above shortens; docs/guarantees.md tells it."""
    from snakepit.worker import _reader

    assert _reader.ORPHAN_GRACE_S == 6


def test_a_host_that_goes_while_the_adapter_initializes_ends_the_worker() -> None:
    """There is nothing to clean up yet, and `initialize` may take for ever."""
    with Worker(start=False) as worker:
        worker.expect(Hello)
        worker.send(start_message("mortal_adapters:FailingHooks", ("initialize", "hang")))
        worker.wait_line("in initialize")
        worker.hang_up()
        assert worker.wait_exit(GONE_S) == 70
        *before, last = worker.lines
        assert before == ["in __init__", "in initialize"]
        assert last == "snakepit worker: it ends because its host is gone"


def test_sigterm_while_the_adapter_initializes_ends_the_worker() -> None:
    with Worker(start=False) as worker:
        worker.expect(Hello)
        worker.send(start_message("mortal_adapters:FailingHooks", ("initialize", "hang")))
        worker.wait_line("in initialize")
        worker.send_signal(signal.SIGTERM)
        assert worker.expect(Failure).error.builtin == "SystemExit"
        assert worker.wait_exit(GONE_S) == 1
        assert worker.lines == ["in __init__", "in initialize"]


def test_the_terminals_ctrl_c_is_the_hosts_business() -> None:
    """SIGINT ends neither an idle worker nor a tool that runs."""
    with Worker("mortal_adapters:Mortal") as worker:
        worker.send_signal(signal.SIGINT)
        assert worker.call("echo", {"value": 1}) == 1
        call = worker.begin("sleep")
        worker.wait_line("running")
        worker.send_signal(signal.SIGINT)
        worker.assert_quiet()
        assert worker.cancel(call) == Settled(call)


@pytest.mark.parametrize("state", ["idle", "a tool runs"])
def test_whatever_ends_the_io_thread_is_told_and_ends_the_worker(state: str) -> None:
    """Nobody would hear the host any more, nor its end."""
    # Coverage would take the exception that is meant for the thread.
    env = {**unmeasured_env(), "PYTHONPATH": worker_env()["PYTHONPATH"]}
    with Worker("mortal_adapters:Mortal", env=env) as worker:
        call = worker.begin("upset_the_io_thread", {"then_sleep": state == "a tool runs"})
        if state == "idle":
            assert worker.value_of(call) is None
        else:
            worker.wait_line("running")
        worker.send(Credit(99, 1))  # wakes it
        worker.wait_exit(GONE_S)
        told = "snakepit worker: it hears its host no more: MemoryError()"
        assert worker.lines.count(told) == 1
        worker.lines.remove(told)
        ran = [] if state == "idle" else ["running", "interrupted"]
        assert worker.lines == [*BORN, *ran, "cleaned up"]


@pytest.mark.parametrize(
    ("adapter", "tool_backend"),
    [("Mortal", "asyncio"), ("AsyncMortal", "asyncio"), ("AsyncMortal", "trio")],
)
def test_an_error_of_the_librarys_own_ends_the_worker_aloud(
    adapter: str, tool_backend: str
) -> None:
    """It never leaves a caller without an answer, from a worker that lives on."""
    with Worker(f"mortal_adapters:{adapter}", tool_backend=tool_backend, argv=BUGGY) as worker:
        worker.begin("echo")
        assert worker.wait_exit(GONE_S) == 1
        with pytest.raises(WorkerEndedError):
            worker.receive()
        assert "cleaned up" in worker.lines
        assert "snakepit worker: it ends because of an error:" in worker.lines
        assert "RuntimeError: a bug" in worker.lines


# -- a host that does not behave -----------------------------------------------------------------


def test_the_end_of_the_pipe_before_start_ends_the_worker() -> None:
    with Worker(start=False) as worker:
        worker.expect(Hello)
        worker.hang_up()
        assert worker.wait_exit(GONE_S) == 1
        assert worker.lines == []


def test_a_first_message_that_is_not_start_ends_the_worker() -> None:
    with Worker(start=False) as worker:
        worker.expect(Hello)
        worker.send(Cancel(1))
        assert worker.wait_exit(GONE_S) == 1
        assert worker.lines == ["snakepit worker: the host did not say Start"]


GARBAGE = {
    "text": b"GET / HTTP/1.1\r\n\r\n",
    "not msgpack": frame(b"\xc1\xc1\xc1"),
    "unknown tag": frame(b"\x91\xcc\xc8"),
    "a worker's message": frame(encode_message(Goodbye())),
    "wrong fields": frame(b"\x92\x02\xa1x"),
    "too long": b"\xff\xff\xff\xff",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("state", ["before Start", "idle", "a tool runs"])
def test_garbage_from_the_host_ends_the_worker(state: str, garbage: bytes) -> None:
    """One line says why; a stream that lost its place is not read any further."""
    with Worker("mortal_adapters:Mortal", start=state != "before Start") as worker:
        if state == "before Start":
            worker.expect(Hello)
        if state == "a tool runs":
            worker.begin("sleep")
            worker.wait_line("running")
        worker.send_bytes(garbage)
        code = worker.wait_exit(GONE_S)
        told = [line for line in worker.lines if line.startswith("snakepit worker: ")]
        assert len(told) == 1
        others = [line for line in worker.lines if line not in told]
        if state == "before Start":
            assert (code, others) == (1, [])
        else:
            ran = ["running", "interrupted"] if state == "a tool runs" else []
            assert others == [*BORN, *ran, "cleaned up"]


@pytest.mark.parametrize("garbage", ["text", "wrong place"])
def test_garbage_ends_also_a_worker_that_cannot_say_so(garbage: str) -> None:
    """A tool has closed fd 2: there is nowhere to complain, and the worker must not stay."""
    with Worker("mortal_adapters:Mortal") as worker:
        assert worker.call("close_stderr") is None
        if garbage == "text":
            worker.send_bytes(GARBAGE["text"])
        else:
            worker.send(start_message("mortal_adapters:Mortal"))  # a second Start
        worker.wait_exit(GONE_S)


# -- the start that fails --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("adapter", "args", "builtin", "words"),
    [
        ("no_such_module:Adapter", (), "ImportError", "no_such_module"),
        ("mortal_adapters:NoSuch", (), "AttributeError", "NoSuch"),
        ("worker_kit", (), "ValueError", "no @tool"),
        ("mortal_adapters:Mortal", (1,), "TypeError", "positional argument"),
        ("mortal_adapters:FailingHooks", ("__init__", "ValueError"), "ValueError", "wrong"),
        ("mortal_adapters:FailingHooks", ("initialize", "ValueError"), "ValueError", "wrong"),
        ("mortal_adapters:FailingHooks", ("initialize", "sys.exit"), "SystemExit", "3"),
        ("mortal_adapters:FailingHooks", ("initialize", "KeyboardInterrupt"), "KeyboardInterrupt", ""),
        ("mortal_adapters:FailingHooks", ("initialize", "hostile"), "Exception", ""),
    ],
)  # fmt: skip
def test_what_keeps_an_adapter_from_starting_is_told(
    adapter: str, args: tuple[str, ...], builtin: str, words: str
) -> None:
    """As the failure of call 0, with the traceback; the exit code is 1."""
    with Worker(start=False) as worker:
        worker.expect(Hello)
        worker.send(start_message(adapter, args))
        failure = worker.failure_of(0)
        assert failure.kind == "start"
        mro = {"ModuleNotFoundError": "ImportError"}
        found = failure.error.builtin or ""
        assert mro.get(found, found) == builtin
        assert words in failure.error.message
        assert "Traceback" in failure.error.traceback
        assert worker.wait_exit(GONE_S) == 1


def test_tools_that_cannot_be_told_are_a_failed_start_and_are_cleaned_up() -> None:
    """`initialize` has run by then."""
    with Worker(start=False) as worker:
        worker.expect(Hello)
        worker.send(start_message("mortal_adapters:TooLong"))
        failure = worker.failure_of(0)
        assert (failure.kind, failure.error.type) == ("start", "snakepit.errors.ProtocolError")
        assert worker.wait_exit(GONE_S) == 1
        assert worker.lines == ["initialized", "cleaned up"]


def test_a_cleanup_that_fails_is_told_on_stderr() -> None:
    """No Goodbye: the host learns that the end was not an orderly one."""
    with Worker("mortal_adapters:FailingHooks", adapter_args=("cleanup", "ValueError")) as worker:
        worker.send(Shutdown(5.0))
        assert worker.wait_exit(GONE_S) == 1
        with pytest.raises(WorkerEndedError):
            worker.receive()
        assert "ValueError: ('wrong', 3)" in worker.lines


# -- tools that misbehave ----------------------------------------------------------------------

# How it ends → the nearest builtin class, and what the message holds.
OUTCOMES = {
    "ValueError": ("ValueError", "wrong"),
    "sys.exit": ("SystemExit", "3"),
    "sys.exit with text": ("SystemExit", "bye"),
    "SystemExit": ("SystemExit", ""),
    "KeyboardInterrupt": ("KeyboardInterrupt", ""),
    "GeneratorExit": ("GeneratorExit", ""),
    "BaseException": ("BaseException", "base"),
    "ToolCancelled": ("BaseException", "by itself"),
    "StopIteration": ("StopIteration", "7"),
    "StopAsyncIteration": ("StopAsyncIteration", "7"),
    "ExceptionGroup": ("ExceptionGroup", "group (2 sub-exceptions)"),
    "hostile": ("Exception", "RuntimeError"),
    "more hostile": ("Exception", "SystemExit"),
    "unpicklable": ("Exception", "holds a lock"),
    "cause": ("FileNotFoundError", "/a/path"),
    "recursion": ("RecursionError", "maximum recursion depth"),
    "memory": ("MemoryError", ""),
    "class that cannot be made": ("Exception", "RuntimeError"),
}
# Python itself turns these into a RuntimeError where they would end a generator or coroutine.
IN_GENERATORS = {"StopIteration": ("RuntimeError", "generator raised StopIteration")}
IN_COROUTINES = {"StopIteration": ("RuntimeError", "coroutine raised StopIteration")}
IN_ASYNC_GENERATORS = {
    "StopIteration": ("RuntimeError", "async generator raised StopIteration"),
    "StopAsyncIteration": ("RuntimeError", "async generator raised StopAsyncIteration"),
}


def check_failures(worker: Worker, tool: str, expected: dict[str, tuple[str, str]]) -> None:
    for how, (builtin, words) in expected.items():
        failure = worker.fail(tool, {"how": how})
        assert (how, failure.kind, failure.error.builtin) == (how, "tool", builtin)
        assert words in failure.error.message
        assert worker.call("echo", {"value": how}) == how


def check_stream_failures(worker: Worker, tool: str, expected: dict[str, tuple[str, str]]) -> None:
    for how, (builtin, words) in expected.items():
        call = worker.begin(tool, {"how": how}, window=3)
        assert worker.items_of(call, 1) == ["first"]
        failure = worker.failure_of(call)
        assert (how, failure.kind, failure.error.builtin) == (how, "tool", builtin)
        assert words in failure.error.message
        assert worker.call("echo", {"value": how}) == how


def test_however_a_tool_ends_the_worker_lives_on() -> None:
    """Exits, interrupts, StopIteration, exceptions that resist: all of it travels as data."""
    with Worker("mortal_adapters:Mortal") as worker:
        pid = worker.call("pid")
        check_failures(worker, "misbehave", OUTCOMES)
        check_stream_failures(worker, "misbehaving_stream", OUTCOMES | IN_GENERATORS)
        assert worker.call("pid") == pid


@pytest.mark.parametrize("tool_backend", ["asyncio", "trio"])
def test_however_an_async_tool_ends_the_worker_lives_on(tool_backend: str) -> None:
    with Worker("misdeeds:AsyncMisdeeds", tool_backend=tool_backend) as worker:
        check_failures(worker, "misbehave", OUTCOMES | IN_COROUTINES)
        check_failures(worker, "misbehave_inline", OUTCOMES)
        check_stream_failures(worker, "misbehaving_stream", OUTCOMES | IN_ASYNC_GENERATORS)


def test_a_constructor_of_an_argument_may_exit() -> None:
    """Argument conversion runs code of the user's, too."""
    with Worker("mortal_adapters:Mortal") as worker:
        assert worker.call("take_point", {"point": {"x": 1}}) == "Point(x=1)"
        failure = worker.fail("take_point", {"point": {"x": -1}})
        assert (failure.kind, failure.error.builtin) == ("params", "SystemExit")
        assert worker.call("echo", {"value": 1}) == 1


def test_a_value_whose_encoding_exits_is_a_failure() -> None:
    """So does the encoding of a result."""
    with Worker("mortal_adapters:Mortal") as worker:
        failure = worker.fail("return_point_that_exits")
        assert (failure.kind, failure.error.builtin) == ("serialization", "SystemExit")
        call = worker.begin("stream_point_that_exits", window=3)
        assert worker.items_of(call, 1) == ["first"]
        failure = worker.failure_of(call)
        assert (failure.kind, failure.error.builtin) == ("tool", "SystemExit")
        assert worker.call("echo", {"value": 1}) == 1


# -- children of a tool ------------------------------------------------------------------------


def test_a_forked_child_has_the_signal_handlers_of_any_process() -> None:
    with Worker("mortal_adapters:Mortal") as worker:
        assert worker.call("child_handlers") == ["default_int_handler", "SIG_DFL", "SIG_DFL"]


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, int(signal.SIGTERM)), (signal.SIGINT, 42 << 8)],
    ids=["SIGTERM", "SIGINT"],
)
def test_a_forked_child_can_be_ended_by_a_signal(number: signal.Signals, status: int) -> None:
    """SIGTERM ends it; SIGINT is a KeyboardInterrupt there; the worker does not notice."""
    with Worker("mortal_adapters:Mortal") as worker:
        assert worker.call("how_a_child_ends", {"number": int(number)}) == status


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGPIPE"])
def test_a_spawned_child_ignores_no_signal(name: str) -> None:
    """What the worker does about signals is not inherited through exec."""
    number = signal.Signals[name]
    with Worker("mortal_adapters:Mortal") as worker:
        code = worker.call("ask_a_spawned_child", {"number": int(number)})
        assert code == -number or (name == "SIGPIPE" and code == 0)  # Python ignores SIGPIPE


def test_a_forked_child_that_returns_from_its_tool_ends() -> None:
    """It is no worker: it answers nothing, cleans up nothing, and does not stay."""
    with Worker("mortal_adapters:Mortal") as worker:
        status, value = worker.call("fork_and_return")
        assert value == "parent"
        assert os.WIFEXITED(status)
        assert worker.call("echo", {"value": 1}) == 1
        assert worker.shut_down() == 0
        assert worker.lines == [*BORN, "cleaned up"]
