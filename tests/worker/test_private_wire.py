"""What tools, C libraries and children print or do to fds 0-2 never touches the wire."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from worker_kit import Worker, WorkerEndedError

BY_LINES = (
    "print",
    "print_to_stderr",
    "write_fd_1",
    "write_fd_2",
    "c_puts",
    "child",
    "system",
    "fork",
)


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker("noisy_adapter:Noisy") as worker:
        yield worker


@pytest.mark.parametrize("how", BY_LINES)
def test_what_is_printed_lands_on_stderr_line_by_line(worker: Worker, how: str) -> None:
    """It is there before the result, and the wire carries the result alone."""
    call = worker.begin("speak", {"how": how})
    worker.wait_line("one")
    worker.wait_line("two")
    assert worker.value_of(call) == how
    assert worker.call("echo", {"value": "next"}) == "next"


def test_the_hooks_may_print_as_well() -> None:
    """From the constructor to cleanup, all of it is on stderr."""
    with Worker("noisy_adapter:NoisyHooks") as worker:
        assert worker.shut_down() == 0
        assert worker.lines == ["constructed", "initialized", "cleaned up"]


def test_text_that_cannot_be_encoded_is_printed_with_escapes(worker: Worker) -> None:
    call = worker.begin("speak", {"how": "unencodable"})
    worker.wait_line("one")
    worker.wait_line(r"two \udcff")
    assert worker.value_of(call) == "unencodable"


def test_what_c_keeps_in_its_buffer_comes_at_the_end() -> None:
    """C's own stdout is flushed when the process ends; it must not be lost, nor hit the wire."""
    with Worker("noisy_adapter:Noisy") as worker:
        assert worker.call("puts_unflushed") is None
        assert worker.shut_down() == 0
        assert "from C, in a buffer" in worker.lines


@pytest.mark.parametrize("through", ["print", "fd 1"])
def test_megabytes_of_output_reach_stderr_whole(worker: Worker, through: str) -> None:
    assert worker.call("megabytes", {"count": 4, "through": through}) == 4
    worker.call("print_now", {"text": "the end"})
    worker.wait_line("the end")
    assert worker.lines == ["x" * 1023] * 4 * 1024 + ["the end"]


@pytest.mark.parametrize("how", ["sys.stdin", "fd 0"])
def test_reading_stdin_meets_its_end(worker: Worker, how: str) -> None:
    """Not the host's bytes, and no wait for anybody's typing."""
    assert worker.call("read_stdin", {"how": how}) == ("" if how == "sys.stdin" else b"")


def test_input_fails_with_eof(worker: Worker) -> None:
    failure = worker.fail("read_stdin", {"how": "input"})
    assert (failure.kind, failure.error.builtin) == ("tool", "EOFError")
    assert worker.call("echo", {"value": 1}) == 1


@pytest.mark.parametrize("fds", [[0], [1], [2], [0, 1, 2]])
def test_a_tool_that_closes_standard_descriptors_harms_itself_only(
    worker: Worker, fds: list[int]
) -> None:
    """The worker answers on; what the tool then prints is its own error at most."""
    assert worker.call("close_fds", {"fds": fds}) == fds
    assert worker.call("echo", {"value": 1}) == 1
    for file, fd in (("stdout", 1), ("stderr", 2)):
        if fd in fds:
            failure = worker.fail("print_now", {"text": "lost", "file": file})
            assert (failure.kind, failure.error.builtin) == ("tool", "OSError")
        else:
            assert worker.call("print_now", {"text": "kept", "file": file}) is None
            worker.wait_line("kept")


def test_a_file_that_takes_a_closed_descriptor_gets_no_frames(
    worker: Worker, tmp_path: Path
) -> None:
    """A tool closes fds 0 to 2 and opens files: they are given those numbers, and are its own."""
    worker.call("close_fds", {"fds": [0, 1, 2]})
    paths = [tmp_path / str(number) for number in range(3)]
    assert [worker.call("open_file", {"path": str(path)}) for path in paths] == [0, 1, 2]
    assert worker.call("echo", {"value": "x" * 1000}) == "x" * 1000
    assert {path.read_text(encoding="utf-8") for path in paths} == {"what the tool wrote\n"}


@pytest.mark.parametrize("how", ["close_streams", "drop_streams"])
def test_the_sys_streams_may_be_closed_or_dropped(worker: Worker, how: str) -> None:
    assert worker.call(how) is None
    assert worker.call("echo", {"value": 1}) == 1


def test_standard_descriptors_are_harmless_ones(worker: Worker) -> None:
    """fd 0 is /dev/null, fd 1 and fd 2 are stderr; none is an end of the wire."""
    stdin, stdout, stderr = worker.call("own_fds")
    assert stdin == os.stat(os.devnull).st_ino
    assert stdout == stderr == os.fstat(worker.stderr).st_ino


@pytest.mark.parametrize("how", ["subprocess", "subprocess, close_fds=False", "shell", "fork"])
def test_children_inherit_nothing_of_the_wire(worker: Worker, how: str) -> None:
    """Neither a child that is exec'd nor one that is only forked can read or write frames."""
    wire = {os.fstat(worker.stdin).st_ino, os.fstat(worker.stdout).st_ino}
    assert stat.S_ISFIFO(os.fstat(worker.stdin).st_mode)
    child_fds = worker.call("child_fds", {"how": how})
    assert len(child_fds) >= 3
    assert wire.isdisjoint(child_fds)
    assert worker.call("echo", {"value": 1}) == 1


def test_a_child_that_stays_does_not_hold_the_wire_open() -> None:
    """The host sees the end of the worker when the worker ends, whatever its children do."""
    with Worker("noisy_adapter:Noisy") as worker:
        child = worker.call("leave_child")
        assert worker.shut_down() == 0
        with pytest.raises(WorkerEndedError):
            worker.receive()
        os.kill(child, 9)
