"""The conductor's hold on the contenders: start their processes, ask one at a time, end them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from attrs import field, frozen

from benchmarks._rounds import FailedError

ANSWER_S_MAX: Final = 900.0  # a million calls take a minute, and several on a busy machine
CLOSE_S_MAX: Final = 15.0


class LeftOutError(Exception):
    """The contender cannot take part here: a peer that is not installed, a transport to come."""


class Subject:
    """The process of one contender. `opened_s`: from opening it to its first result.

    The constructor returns at once; `ready` waits until the contender has said hello, so that
    several can start side by side.
    """

    def __init__(self, name: str, workers: int) -> None:
        self.name = name
        self.opened_s = 0.0
        commands, to_subject = os.pipe()
        self._replies, replies = os.pipe()
        self._commands = open(to_subject, "wb", buffering=0)  # noqa: SIM115 - until `dismiss`
        self._unread = b""
        with os.fdopen(commands), os.fdopen(replies):  # ours no more, once it has started
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "benchmarks._driver", name, str(workers)),
                    *(str(commands), str(replies)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=2,
                pass_fds=(commands, replies),
                start_new_session=True,
            )

    def ready(self) -> None:
        """Wait for its hello. Raises LeftOutError, FailedError."""
        self.opened_s = self._answer()["opened_s"]

    def measure(self, measure: str, **arguments: Any) -> Any:
        """Let it measure, and return what it found. Raises FailedError."""
        command = json.dumps({"measure": measure, **arguments}).encode()
        try:
            self._commands.write(command + b"\n")
        except BrokenPipeError:
            raise FailedError(f"{self.name}: its process is gone") from None
        return self._answer()["result"]

    def dismiss(self) -> None:
        """Let it close by itself, without waiting for that."""
        self._commands.close()

    def close(self) -> None:
        """End it, and whatever it leaves behind in its process group."""
        self.dismiss()
        if not self._has_ended(CLOSE_S_MAX):
            print(f"{self.name}: still there {CLOSE_S_MAX:.0f} s after its end; killed")
        with suppress(ProcessLookupError):  # it is not reaped yet: the id is still its own
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._replies)

    def _has_ended(self, within_s: float) -> bool:
        """Wait for its end, and leave it to be reaped."""
        deadline = time.monotonic() + within_s
        flags = os.WEXITED | os.WNOWAIT | os.WNOHANG
        while os.waitid(os.P_PID, self._process.pid, flags) is None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        return True

    def _answer(self) -> dict[str, Any]:
        while b"\n" not in self._unread:
            readable, _, _ = select.select([self._replies], [], [], ANSWER_S_MAX)
            if not readable:
                raise FailedError(f"{self.name}: no answer within {ANSWER_S_MAX:.0f} s")
            chunk = os.read(self._replies, 2**16)
            if not chunk:
                raise FailedError(f"{self.name}: its process ended")
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "left_out" in answer:
            raise LeftOutError(answer["left_out"])
        if "failed" in answer:
            raise FailedError(f"{self.name}: {answer['failed']}")
        return answer


@frozen
class Company:
    """Who has come, by name; who could not, and who should have, and why."""

    subjects: dict[str, Subject] = field(factory=dict)
    left_out: dict[str, str] = field(factory=dict)
    failed: dict[str, str] = field(factory=dict)


@contextmanager
def gather(names: Iterable[str], workers: int) -> Iterator[Company]:
    """Start them side by side, and end them with the block."""
    started = [Subject(name, workers) for name in names]
    company = Company()
    try:
        for subject in started:
            try:
                subject.ready()
            except LeftOutError as reason:
                company.left_out[subject.name] = str(reason)
            except FailedError as error:
                company.failed[subject.name] = str(error)
            else:
                company.subjects[subject.name] = subject
        yield company
    finally:
        for subject in started:
            subject.dismiss()
        for subject in started:
            subject.close()
