"""What workers print: every line, whole, however it was cut; the last of them kept; bounded."""

from __future__ import annotations

import fcntl
import logging
import os
import tracemalloc
from collections.abc import Generator
from itertools import pairwise

import anyio
import pytest
from _backends import one_loop_each
from _process_kit import shell
from hypothesis import given, settings
from hypothesis import strategies as st

from snakepit.process import StderrCollector
from snakepit.process._stderr import (
    CHUNK_BYTES,
    LINE_BYTES_MAX,
    PIPE_BYTES,
    TAIL_CHARS_MAX,
    TAIL_LINES_MAX,
)

pytestmark = one_loop_each


class Pipe:
    """A collector, and the end of its pipe that a worker would hold."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)
        self.collector = StderrCollector(self.read_fd, "w-1")

    def write(self, data: bytes) -> None:
        assert os.write(self.write_fd, data) == len(data)

    def close_write(self) -> None:
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def close(self) -> None:
        self.close_write()
        os.close(self.read_fd)

    def lines(self) -> list[str]:
        return list(self.collector._tail)


@pytest.fixture
def pipe() -> Generator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_lines_are_kept_in_order_and_the_last_one_without_an_end(pipe: Pipe) -> None:
    pipe.write(b"one\n\ntwo\nthree")
    pipe.collector.finish()
    assert pipe.collector.tail == "one\n\ntwo\nthree"
    pipe.collector.finish()
    assert pipe.collector.tail == "one\n\ntwo\nthree"


def test_a_begun_line_waits_for_its_end(pipe: Pipe) -> None:
    pipe.write(b"one\ntw")
    assert pipe.collector._read_available()
    assert pipe.lines() == ["one"]
    pipe.write(b"o\n")
    assert pipe.collector._read_available()
    assert pipe.lines() == ["one", "two"]


def test_nothing_printed_is_nothing_kept(pipe: Pipe) -> None:
    pipe.collector.finish()
    assert pipe.collector.tail == ""


def test_ends_of_lines_of_another_system_are_taken_off(pipe: Pipe) -> None:
    pipe.write(b"one\r\ntwo\r\n")
    pipe.collector.finish()
    assert pipe.lines() == ["one", "two"]


def test_bytes_that_are_no_text_are_shown_as_such(pipe: Pipe) -> None:
    pipe.write("grün ".encode() + b"\xff\xfe\n" + b"\xc3\n")
    pipe.collector.finish()
    assert pipe.lines() == ["grün \ufffd\ufffd", "\ufffd"]


def test_only_the_last_lines_are_kept(pipe: Pipe) -> None:
    pipe.write(b"".join(b"%d\n" % number for number in range(TAIL_LINES_MAX + 50)))
    pipe.collector.finish()
    assert pipe.lines() == [str(number) for number in range(50, TAIL_LINES_MAX + 50)]


@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize(
    ("size", "lengths"),
    [
        (LINE_BYTES_MAX - 1, [LINE_BYTES_MAX - 1]),
        (LINE_BYTES_MAX, [LINE_BYTES_MAX]),
        (LINE_BYTES_MAX + 1, [LINE_BYTES_MAX, 1]),
        (2 * LINE_BYTES_MAX, [LINE_BYTES_MAX, LINE_BYTES_MAX]),
        (3 * LINE_BYTES_MAX + 5, [LINE_BYTES_MAX] * 3 + [5]),
    ],
)
@pytest.mark.parametrize("piece_bytes", [1_000, LINE_BYTES_MAX, 60_000])
def test_a_long_line_is_cut(
    pipe: Pipe, size: int, lengths: list[int], end: bytes, piece_bytes: int
) -> None:
    """In the same places, however its bytes arrive."""
    data = b"x" * size + end
    for start in range(0, len(data), piece_bytes):
        pipe.write(data[start : start + piece_bytes])
        pipe.collector._read_available(PIPE_BYTES)
    pipe.collector.finish()
    assert [len(line) for line in pipe.lines()] == lengths


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([b"", b"a", b"bc\r", b"\xff", b"x" * 8191, b"y" * 8193]), max_size=9),
    st.lists(st.integers(1, 9000), max_size=12),
)
def test_lines_do_not_depend_on_how_they_arrive(lines: list[bytes], cuts: list[int]) -> None:
    data = b"\n".join(lines)

    def kept(pieces: list[bytes]) -> list[str]:
        pipe = Pipe()
        try:
            for piece in pieces:
                if piece:
                    pipe.write(piece)
                pipe.collector._read_available(PIPE_BYTES)
            pipe.collector.finish()
            return pipe.lines()
        finally:
            pipe.close()

    pieces, left = [], data
    for cut in cuts:
        pieces.append(left[:cut])
        left = left[cut:]
    pieces += [left[start : start + 60_000] for start in range(0, len(left), 60_000)]
    whole = [data[start : start + 60_000] for start in range(0, len(data), 60_000)]
    assert kept(pieces) == kept(whole)


def test_of_long_lines_fewer_are_kept(pipe: Pipe) -> None:
    """As many as have so many characters; the count is right again when they are short."""
    for _ in range(3):
        for number in range(20):
            pipe.write(b"%02d" % number * (LINE_BYTES_MAX // 2) + b"\n")
            pipe.collector._read_available(PIPE_BYTES)
        assert [line[:2] for line in pipe.lines()] == [f"{number}" for number in range(12, 20)]
        pipe.write(b"short\n" * 2 * TAIL_LINES_MAX)
        pipe.collector._read_available(PIPE_BYTES)
        assert pipe.lines() == ["short"] * TAIL_LINES_MAX
    assert pipe.collector._tail_chars == len("short") * TAIL_LINES_MAX


def test_every_line_goes_to_the_log_with_its_workers_name(
    pipe: Pipe, caplog: pytest.LogCaptureFixture
) -> None:
    """Also those that the tail has forgotten; a percent sign in them is harmless."""
    with caplog.at_level(logging.INFO, "snakepit.worker"):
        pipe.write(b"100 %s of it\n" + b"line\n" * TAIL_LINES_MAX)
        pipe.collector.finish()
    assert len(caplog.records) == TAIL_LINES_MAX + 1
    first = caplog.records[0]
    assert (first.name, first.levelno) == ("snakepit.worker", logging.INFO)
    assert first.getMessage() == "w-1: 100 %s of it"
    assert first.__dict__["worker_id"] == "w-1"


async def test_collecting_ends_when_the_last_writer_has_closed(pipe: Pipe) -> None:
    pipe.write(b"one\ntwo")
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pipe.collector.collect)
            await anyio.wait_all_tasks_blocked()
            assert pipe.lines() == ["one"]
            pipe.write(b"!\nthree\n")
            pipe.close_write()
    assert pipe.lines() == ["one", "two!", "three"]


async def test_a_cancelled_collector_loses_nothing(pipe: Pipe) -> None:
    with anyio.fail_after(10):
        for number in range(3):
            pipe.write(b"be")
            with anyio.move_on_after(0.01):
                await pipe.collector.collect()
            pipe.write(b"gun %d\n" % number)
    pipe.collector.finish()
    assert pipe.lines() == ["begun 0", "begun 1", "begun 2"]


async def test_a_flood_of_lines_lets_others_run(
    pipe: Pipe, caplog: pytest.LogCaptureFixture
) -> None:
    """Logging a line takes a while, and a pipe holds many short ones."""
    count = 16_384
    with caplog.at_level(logging.INFO, "snakepit.worker"), anyio.fail_after(20):
        pipe.write(b"\n" * count)
        pipe.close_write()
        seen = [0]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pipe.collector.collect)
            while seen[-1] < count:
                await anyio.lowlevel.checkpoint()
                seen.append(len(caplog.records))
    # trio may put the collector last in one round and first in the next.
    assert max(b - a for a, b in pairwise(seen)) <= 2 * CHUNK_BYTES


def test_lines_that_nobody_sees_cost_little(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not enabled in the log and soon forgotten: of a pipe full of them few are looked at one by one."""
    assert not logging.getLogger("snakepit.worker").isEnabledFor(logging.INFO)
    kept: list[bytes] = []
    monkeypatch.setattr(type(pipe.collector), "_keep", lambda _, line: kept.append(line))
    pipe.write(b"\n" * PIPE_BYTES)
    pipe.collector._read_available(PIPE_BYTES)
    assert len(kept) <= TAIL_LINES_MAX * PIPE_BYTES // CHUNK_BYTES < PIPE_BYTES / 10


def test_the_end_takes_no_more_than_a_pipe_holds(pipe: Pipe) -> None:
    """A process that has left the group may write for ever; here, sixteen pipes full of it."""
    fcntl.fcntl(pipe.write_fd, fcntl.F_SETPIPE_SZ, 2**20)
    os.set_blocking(pipe.write_fd, False)
    pipe.write(b"x" * 2**20)
    pipe.collector.finish()
    assert sum(map(len, pipe.lines())) == PIPE_BYTES


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # from 3.12 on
def test_a_forked_child_of_the_host_reads_nothing(pipe: Pipe) -> None:
    """The descriptor is closed there, and its number may be somebody else's."""
    pipe.write(b"one\n")
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            pipe.collector.finish()
            code = len(pipe.lines())
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    pipe.collector.finish()
    assert pipe.lines() == ["one"]


FLOOD_BYTES = 10_000_000


@pytest.mark.parametrize(
    "script",
    [
        f"yes {'x' * 199} | head -c {FLOOD_BYTES} >&2",
        f"head -c {FLOOD_BYTES} /dev/zero >&2",
        f"head -c {FLOOD_BYTES} /dev/zero | tr '\\0' '\\377' >&2",
    ],
    ids=["lines", "no line at all", "no text at all"],
)
async def test_a_flood_takes_bounded_memory(script: str) -> None:
    """And the writer is not held up for ever."""
    with anyio.fail_after(50), shell(script) as child:
        collector = StderrCollector(child.process.stderr_fd, "w-1")
        tracemalloc.start()
        try:
            await collector.collect()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        await child.process.wait_exit()
        assert child.process.kill_and_reap().exit_code == 0
    assert TAIL_CHARS_MAX // LINE_BYTES_MAX <= len(collector._tail) <= TAIL_LINES_MAX
    assert len(collector.tail) < TAIL_CHARS_MAX + TAIL_LINES_MAX
    # Python takes two bytes for a character that stands for a byte that is no text.
    assert peak < 2 * 2**20 + 2 * TAIL_CHARS_MAX
