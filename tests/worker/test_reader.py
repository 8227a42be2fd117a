"""Who reads the wire in a worker: nothing that the host says is left lying, whoever was busy."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from worker_kit import PROMPT_S, Worker

from snakepit.protocol import Call, Credit, End, Item, Packer, Settled
from snakepit.worker import _reader
from snakepit.worker._job import Job
from snakepit.worker._reader import HOOK, Reader
from snakepit.worker._wire import Wire


@pytest.fixture
def worker() -> Generator[Worker]:
    with Worker("worker_adapters:Stoppable") as worker:
        yield worker


def test_a_long_call_after_short_ones_hears_its_cancel(worker: Worker) -> None:
    """While calls are short the main thread reads; nobody would hear a cancel meanwhile."""
    for _ in range(3):
        for number in range(20):
            assert worker.call("echo", {"value": number}) == number
        call = worker.begin("block", {"how": "sleep"})
        worker.wait_line("running")
        start = time.monotonic()
        assert worker.cancel(call) == Settled(call)
        assert time.monotonic() - start < PROMPT_S


def test_credit_is_heard_although_the_stream_has_just_begun(worker: Worker) -> None:
    """A generator that waits for credit reads for itself."""
    for _ in range(20):
        call = worker.begin("count", {"stop": 3}, window=1)
        for _ in range(3):
            worker.expect(Item)
            worker.send(Credit(call, 1))
        worker.expect(End)


def test_the_io_thread_of_an_idle_worker_rests(worker: Worker) -> None:
    """No timer runs for nothing: it is not scheduled any more."""
    assert worker.call("echo", {"value": 1}) == 1
    deadline = time.monotonic() + PROMPT_S
    before = -1
    while (now := switches(worker.pid)) != before:
        assert time.monotonic() < deadline
        before = now
        time.sleep(10 * _reader.TICK_S)  # the time in which a timer would have shown itself
    assert worker.call("echo", {"value": 2}) == 2


def switches(pid: int) -> int:
    """How often the threads of the process have been scheduled."""
    count = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if "ctxt_switches" in line:
                count += int(line.split()[1])
    return count


class Recorder:
    """A service that queues calls, and ends the test's process in no case."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def handle_all(self, messages: list[Any]) -> None:
        for message in messages:
            if isinstance(message, Call):
                self.reader.calls.put(Job(message))

    def nag(self) -> bool:
        return False

    def terminate(self) -> None:
        self.reader.calls.put(None)

    def begin_end(self) -> bool:
        raise EndOfTestError


class EndOfTestError(BaseException):
    """In place of the end of the process."""


@pytest.mark.parametrize("seed", range(4))
def test_no_call_is_left_lying_whoever_reads(seed: int, monkeypatch) -> None:
    """Calls come at random times while the main thread is busy for random times."""
    dice = random.Random(seed)
    monkeypatch.setattr(_reader, "TICK_S", 0.0002)
    monkeypatch.setattr(_reader, "IDLE_TICKS_MAX", 3)
    monkeypatch.setattr(os, "_exit", lambda _code: None)
    read_fd, write_fd = os.pipe()
    reader = Reader(Wire(read_fd, write_fd))
    reader.service = Recorder(reader)  # type: ignore[assignment]
    count = 1500
    pauses = [dice.choice([0.0, 0.0, 0.0, 0.0001, 0.0005, 0.002]) for _ in range(count)]
    busy = [dice.choice([0.0, 0.0, 0.0, 0.0001, 0.0005, 0.002]) for _ in range(count)]

    def host() -> None:
        packer = Packer()
        for number, pause_s in enumerate(pauses, 1):
            time.sleep(pause_s)
            os.write(write_fd, packer.pack(Credit(99, 1)) or b"")  # queues nothing
            time.sleep(pause_s)
            os.write(write_fd, packer.pack(Call(number, "tool")) or b"")

    def stand_in() -> None:
        with pytest.raises(EndOfTestError):
            reader.serve([], alone=False)

    threads = [threading.Thread(target=target) for target in (host, stand_in)]
    for thread in threads:
        thread.start()
    try:
        reader.end()
        for number in range(1, count + 1):
            job = reader.wait(reader.calls)
            assert job is not None
            assert job.id == number
            reader.begin(number)
            time.sleep(busy[number - 1])
            reader.end()
    finally:
        threads[0].join()
        os.close(write_fd)
        reader.begin(HOOK)  # as while an adapter cleans up: the I/O thread sees the end
        for thread in threads:
            thread.join()
        os.close(read_fd)
