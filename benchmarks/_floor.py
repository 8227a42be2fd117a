"""The floor: a blocking ping-pong of a few bytes between two processes, over two pipes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

MESSAGE = b"x" * 32
_ECHO = "import os\nwhile data := os.read(0, 4096): os.write(1, data)"


@contextmanager
def ping_pong() -> Iterator[subprocess.Popen[bytes]]:
    """A child that writes back whatever it reads."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _ECHO],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as child:
        yield child
        assert child.stdin is not None
        child.stdin.close()


def round_trips(child: subprocess.Popen[bytes], count: int) -> float:
    """Seconds per round trip."""
    assert child.stdin is not None
    assert child.stdout is not None
    out, back = child.stdin.fileno(), child.stdout.fileno()
    start = time.perf_counter()
    for _ in range(count):
        os.write(out, MESSAGE)
        os.read(back, 4096)
    return (time.perf_counter() - start) / count
