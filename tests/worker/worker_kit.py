"""A real worker process and the host's half of the protocol, blocking, with a bound on every wait.

    with Worker("worker_adapters:Stoppable") as worker:
        call = worker.begin("sleep")
        worker.wait_line("running")
        assert worker.cancel(call) == Settled(call)

A block that is left without an error ends its worker with Shutdown and expects Goodbye and exit
code 0: whatever a test did to it, the worker must have lived on. Nothing is left in any case.
"""

from __future__ import annotations

import array
import fcntl
import os
import select
import signal
import subprocess
import sys
import termios
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from msgspec import Raw

from snakepit.protocol import (
    Call,
    Cancel,
    Failure,
    Goodbye,
    Hello,
    Item,
    Packer,
    Ready,
    Result,
    Settled,
    Shutdown,
    Start,
    ToHost,
    ToWorker,
    Unpacker,
    decode_to_host,
    decode_value,
    encode_value,
)

M = TypeVar("M")

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PATIENCE_S = 15.0  # for what must come; an unloaded machine needs a hundredth of it
QUIET_S = 0.05  # for what must not come
SPIN_S, AIM_STEP_S, AIM_MAX_S = 50e-6, 5e-6, 0.02
LONG_SPIN_S = 0.008  # some ticks of the worker's reader
PIPE_BYTES = 2**16
PAGE_BYTES = 4096  # one page of a full pipe may be partly used
PROMPT_S = 3.0  # "at once", on a machine that has other things to do
ARGV = (sys.executable, "-P", "-m", "snakepit.worker")


class WorkerEndedError(Exception):
    """The worker closed its pipe while a message was expected."""


class Worker:
    """One worker process. `lines` is what it wrote to stderr so far."""

    def __init__(
        self,
        adapter: str = "",
        *,
        adapter_args: tuple[Any, ...] = (),
        tool_backend: str = "asyncio",
        cancel_grace_s: float = 1.0,
        argv: Sequence[str] = ARGV,
        env: Mapping[str, str] | None = None,
        start: bool = True,
    ) -> None:
        self.lines: list[str] = []
        self._seen_lines = 0
        self._line = b""
        self._messages: deque[ToHost] = deque()
        self._unpacker: Unpacker[ToHost] = Unpacker(decode_to_host)
        self._packer = Packer()
        self._last_call = 0
        self._ended = False
        self._process = subprocess.Popen(
            argv,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=worker_env() if env is None else env,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.pid = self._process.pid
        self.stdin = self._process.stdin.fileno()
        self.stdout = self._process.stdout.fileno()
        self.stderr = self._process.stderr.fileno()
        self.tools: dict[str, Any] = {}
        try:
            if start:
                self.expect(Hello)
                self.send(start_message(adapter, adapter_args, tool_backend, cancel_grace_s))
                self.tools = {tool.name: tool for tool in self.expect(Ready).tools}
        except BaseException:
            self._destroy()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None and not self._ended:
                assert self.shut_down() == 0
        finally:
            self._destroy()
            if error is not None:
                error.add_note("the worker's stderr:\n" + "\n".join(self.lines))

    # -- messages ----------------------------------------------------------------------------

    def send(self, *messages: ToWorker) -> None:
        """Write them all; small ones in one write."""
        frames = bytearray()
        for message in messages:
            frame = self._packer.pack(message)
            if frame is not None:
                frames += frame
                continue
            for head, data in self._packer.pack_parts(message):
                frames += head
                frames += data or b""
        self.send_bytes(frames)

    def send_bytes(self, data: bytes | bytearray) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.stdin, rest) :]

    def receive(self, timeout: float = PATIENCE_S) -> ToHost:
        """The next message. Raises WorkerEndedError, TimeoutError."""
        deadline = time.monotonic() + timeout
        while not self._messages:
            if self._ended:
                raise WorkerEndedError
            self._pump(deadline, self.stdout, self.stderr)
        return self._messages.popleft()

    def expect(self, kind: type[M]) -> M:
        """The next message, which must be of this type."""
        message = self.receive()
        if isinstance(message, Failure) and kind is not Failure:
            raise AssertionError(f"{message.kind}: {message.error.traceback}")
        assert type(message) is kind, message
        return message

    def assert_quiet(self, seconds: float = QUIET_S) -> None:
        """No message comes for so long."""
        try:
            message = self.receive(seconds)
        except TimeoutError:
            return
        raise AssertionError(f"unexpected: {message}")

    # -- calls -------------------------------------------------------------------------------

    def call_message(
        self,
        tool: str,
        params: object = None,
        /,
        *,
        window: int = 0,
        timeout_s: float | None = None,
    ) -> Call:
        """A call with the next number, not yet sent."""
        self._last_call += 1
        body, buffers = encode_value({} if params is None else params)
        return Call(self._last_call, tool, body, buffers, timeout_s, window)

    def begin(self, tool: str, params: object = None, /, *, window: int = 0) -> int:
        """Send a call; return its number."""
        call = self.call_message(tool, params, window=window)
        self.send(call)
        return call.id

    def call(self, tool: str, params: object = None, /) -> Any:
        """Call a tool and wait for its value."""
        return self.value_of(self.begin(tool, params))

    def value_of(self, call: int) -> Any:
        """The value of this call, whose result must be the next message."""
        result = self.expect(Result)
        assert result.id == call
        return value(result)

    def items_of(self, call: int, count: int) -> list[Any]:
        """The next `count` items; nothing else may come between."""
        items = [self.expect(Item) for _ in range(count)]
        assert {item.id for item in items} <= {call}
        return list(map(value, items))

    def failure_of(self, call: int) -> Failure:
        """The failure of this call, which must be the next message."""
        failure = self.expect(Failure)
        assert failure.id == call
        return failure

    def fail(self, tool: str, params: object = None, /) -> Failure:
        """Call a tool and wait for it to fail."""
        return self.failure_of(self.begin(tool, params))

    def cancel(self, call: int, *, within: float = PROMPT_S) -> ToHost:
        """Cancel a call; return the message that answers, which must come within that time."""
        started = time.monotonic()
        self.send(Cancel(call))
        answer = self.receive()
        assert time.monotonic() - started < within
        return answer

    # -- stderr and the process ---------------------------------------------------------------

    def wait_line(self, wanted: str | Callable[[str], bool], timeout: float = PATIENCE_S) -> str:
        """Wait for a line on stderr, from the last one found on; stdout is left alone."""
        matches = wanted if callable(wanted) else wanted.__eq__
        deadline = time.monotonic() + timeout
        while True:
            for number in range(self._seen_lines, len(self.lines)):
                if matches(self.lines[number]):
                    self._seen_lines = number + 1
                    return self.lines[number]
            self._seen_lines = len(self.lines)
            if not self._pump(deadline, self.stderr):
                raise WorkerEndedError

    def wait_full_pipe(self) -> None:
        """Wait until the worker has filled the pipe that we do not read."""
        full = PIPE_BYTES - PAGE_BYTES
        self._wait_until(lambda: unread_bytes(self.stdout) >= full)

    def wait_heard(self) -> None:
        """Wait until the worker has read what we sent, and has interrupted its main thread twice.

        Only where the main thread sits in one blocking call that the interrupt does not end.
        """
        self._wait_until(lambda: unread_bytes(self.stdin) == 0)
        if sys.platform != "linux":
            time.sleep(0.1)
            return
        before = self._main_thread_switches()
        self._wait_until(lambda: self._main_thread_switches() >= before + 2)

    def wait_asleep(self) -> None:
        """Wait until the main thread waits for something, as for room in a pipe that we do not read."""
        if sys.platform != "linux":
            time.sleep(0.1)
            return
        stat = Path(f"/proc/{self.pid}/task/{self.pid}/stat")
        self._wait_until(
            lambda: stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "S"
        )

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def hang_up(self) -> None:
        """Close our ends of both protocol pipes, as the death of a host does."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdout.close()  # first: at the end of the other one it may say Goodbye
        self._process.stdin.close()
        self._ended = True

    def shut_down(self) -> int:
        """Say Shutdown, expect Goodbye; return the exit code."""
        self.send(Shutdown(5.0))
        self.expect(Goodbye)
        return self.wait_exit()

    def wait_exit(self, timeout: float = PATIENCE_S) -> int:
        """Wait for the process to end, and for stderr to be read; return the exit code."""
        deadline = time.monotonic() + timeout
        while (code := self._process.poll()) is None:
            fds = (self.stderr,) if self._ended else (self.stdout, self.stderr)
            try:
                self._pump(min(deadline, time.monotonic() + 0.01), *fds)
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise
        self._ended = True
        while select.select([self.stderr], [], [], 0)[0] and self._read_stderr():
            pass
        if self._line:
            self.lines.append(self._line.decode())
            self._line = b""
        return code

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def _main_thread_switches(self) -> int:
        text = Path(f"/proc/{self.pid}/task/{self.pid}/status").read_text(encoding="ascii")
        return int(text.split("nonvoluntary")[0].rsplit("voluntary_ctxt_switches:", 1)[1])

    def _pump(self, deadline: float, *fds: int) -> bool:
        """Read once from what is readable; False at the end of stderr. Raises TimeoutError."""
        ready = select.select(fds, [], [], max(0.0, deadline - time.monotonic()))[0]
        if not ready:
            raise TimeoutError
        if self.stdout in ready:
            chunk = os.read(self.stdout, 2**16)
            self._ended = not chunk
            self._messages += self._unpacker.feed(chunk) if chunk else ()
        return self._read_stderr() if self.stderr in ready else True

    def _read_stderr(self) -> bool:
        chunk = os.read(self.stderr, 2**16)
        *lines, self._line = (self._line + chunk).split(b"\n")
        self.lines += [line.decode() for line in lines]
        if not chunk:
            time.sleep(0.001)  # at its end it is always readable
        return bool(chunk)

    def _destroy(self) -> None:
        if self._process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()


def cancel_at_the_return(worker: Worker, tool: str, shots: int) -> None:
    """Cancel calls of a tool that spins, at its very end, each with another call right behind it.

    Whatever becomes of the cancelled call, the other one must return its own value; now and then it is
    long enough for a late interrupt to be sent to it. The aim is
    adjusted after each shot, in steps that grow while it misses on the same side.
    """
    aim_s, step_s = (
        0.0,
        AIM_STEP_S,
    )  # above 0 the cancel is held back, below 0 the tool spins longer
    lateness: list[bool] = []
    for number in range(shots):
        doomed = worker.call_message(tool, {"seconds": SPIN_S + max(-aim_s, 0.0)})
        is_long = number % 4 == 0
        if is_long:
            following = worker.call_message(tool, {"seconds": LONG_SPIN_S})
        else:
            following = worker.call_message("echo", {"value": number})
        worker.send(doomed)
        end = time.perf_counter() + aim_s
        while time.perf_counter() < end:
            pass
        worker.send(Cancel(doomed.id), following)
        outcome = worker.receive()
        late = isinstance(outcome, Result)
        if isinstance(outcome, Result):
            assert (outcome.id, value(outcome)) == (doomed.id, "spun")
        else:
            assert outcome in (Settled(doomed.id), Settled(doomed.id, ran=False))
        assert worker.value_of(following.id) == ("spun" if is_long else number)
        step_s = min(step_s * 2, AIM_MAX_S / 4) if lateness and late is lateness[-1] else AIM_STEP_S
        aim_s = max(-AIM_MAX_S, min(AIM_MAX_S, aim_s - step_s if late else aim_s + step_s))
        lateness.append(late)
    assert 0.05 < sum(lateness) / shots < 0.95, "the shots missed the edge"


def start_message(
    adapter: str,
    adapter_args: tuple[Any, ...] = (),
    tool_backend: str = "asyncio",
    cancel_grace_s: float = 1.0,
) -> Start:
    """A Start that lets the worker import what lies beside these tests."""
    body, buffers = encode_value(adapter_args)
    return Start("w1", adapter, Raw(body), buffers, tool_backend, cancel_grace_s, (str(HERE),))


def worker_env() -> dict[str, str]:
    """Our environment, with this package to be found, and with Python's own buffering."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env.pop("PYTHONUNBUFFERED", None)
    return env


def value(message: Result | Item) -> Any:
    """The value that a message carries."""
    return decode_value(message.body, message.buffers)


def unread_bytes(fd: int) -> int:
    """How many bytes wait in the pipe, seen from either end."""
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]
