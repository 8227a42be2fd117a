"""The floor: a blocking ping-pong over two pipes, of as many bytes as a call and its result.

No loop, no threads, no decoding; both processes run wherever the kernel puts them. What a pool
adds to this is what it costs. With a trio loop on one side it is also the least that anything on
trio can cost.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import Final

import trio

from snakepit.protocol import Call, Result, encode_message, encode_params, encode_value, frame

_CALL_NUMBER: Final = 100_000  # of the usual length, five bytes
_ECHO: Final = """
import os, sys
size, answer = int(sys.argv[1]), b"r" * int(sys.argv[2])
while len(os.read(0, size)) == size:
    os.write(1, answer)
"""


def frame_bytes() -> tuple[int, int]:
    """How many bytes a call that does nothing takes on the wire, and its result."""
    call = Call(_CALL_NUMBER, "nothing", *encode_params({}))
    result = Result(_CALL_NUMBER, *encode_value(None))
    return len(frame(encode_message(call))), len(frame(encode_message(result)))


class Floor:
    """Two processes; the other one answers whatever comes."""

    def __init__(self) -> None:
        call_bytes, self._result_bytes = frame_bytes()
        self._ping = b"c" * call_bytes
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _ECHO, str(call_bytes), str(self._result_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._out, self._back = self._child.stdin.fileno(), self._child.stdout.fileno()

    def round_trip(self, seconds: float) -> float:
        """The median of the round trips of this time, in seconds."""
        clock, times = time.perf_counter, []
        start, end = clock(), clock() + seconds
        while start < end or not times:
            os.write(self._out, self._ping)
            answer = os.read(self._back, self._result_bytes)
            now = clock()
            assert len(answer) == self._result_bytes
            times.append(now - start)
            start = clock()
        return statistics.median(times)

    async def round_trip_on_trio(self) -> None:
        """The same, once, with a loop that sleeps until the answer is there."""
        os.write(self._out, self._ping)
        await trio.lowlevel.wait_readable(self._back)
        answer = os.read(self._back, self._result_bytes)
        assert len(answer) == self._result_bytes

    def close(self) -> None:
        """End the other process."""
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            pipe.close()
        self._child.wait()
