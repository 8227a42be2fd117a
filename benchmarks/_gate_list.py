"""What is asked of the figures, and what is hoped for."""

from __future__ import annotations

from typing import Final

from benchmarks._contenders import DEFAULT, GRPC, GRPC_ON_ASYNCIO, NOT_PIPELINED, SHARED
from benchmarks._gates import Gate, above, cost, median, rate, speed, worst
from benchmarks._grpc_peers import AIO_TO_GRPCLIB, AIO_TO_SNAKEPIT, GRPCLIB

_QUICK_PEERS: Final = ("anyio.to_process", "trio-parallel", "multiprocessing.Pool")
_SPAWN: Final = "ProcessPoolExecutor spawn"
_GREW: Final = tuple(
    f"growth of the {side} from 100,000 calls to 1,000,000" for side in ("host", "worker")
)

GATES: Final = (
    Gate(
        "no-op round trip over that of anyio.to_process",
        cost("roundtrip", DEFAULT, "anyio.to_process"),
        0.7,
    ),
    Gate("no-op round trip over the floor", cost("roundtrip", DEFAULT, "floor"), 2),
    Gate(
        "no-op throughput over the best of " + ", ".join(_QUICK_PEERS),
        speed("throughput", DEFAULT, *_QUICK_PEERS),
        3,
        at_least=True,
    ),
    Gate(
        "the same with pipelining off",
        speed("throughput", NOT_PIPELINED.name, *_QUICK_PEERS),
        1.7,
        at_least=True,
    ),
    Gate(
        "the longest of thousands of short calls beside one of 5 s",
        worst("longcall", "the longest short call"),
        0.25,
        "s",
    ),
    Gate(
        "a chunk of a stream of 100,000 over a call of the no-op throughput",
        cost("stream", f"{DEFAULT}, a chunk", f"{DEFAULT}, a call"),
        1,
    ),
    Gate(
        "round trip of a tool that makes one no-op host call over that of a no-op",
        cost("hostcall", f"{DEFAULT}, a host call", f"{DEFAULT}, a no-op"),
        2.5,
    ),
    Gate(
        "100,000 floats there and back over ProcessPoolExecutor (spawn)",
        cost("floats", DEFAULT, _SPAWN),
        1.2,
    ),
    Gate(
        "a dict of 1,000 keys there and back over ProcessPoolExecutor (spawn)",
        cost("dict", DEFAULT, _SPAWN),
        2,
    ),
    Gate(
        "opening a pool of 2 to the first result over ProcessPoolExecutor (spawn)",
        cost("startup", DEFAULT, _SPAWN),
        1.2,
    ),
    Gate("USS of an idle worker, bare adapter", worst("memory", "an idle worker"), 11, "MiB"),
    Gate(
        "growth of either side from 100,000 calls to 1,000,000",
        worst("memory", *_GREW),
        1,
        "MiB",
    ),
    Gate(
        "cost per call with 10,000 waiting callers over that with 10",
        cost("waiting", "10,000 callers", "10 callers"),
        1.1,
    ),
    Gate(
        "cost per call with 10,000 sessions over that with 10",
        cost("sessions", "10,000 sessions", "10 sessions"),
        1.1,
    ),
    Gate(
        "cost per call with 1,000 workers in memory over that with 10",
        cost("workers", "1,000 workers", "10 workers"),
        1.1,
    ),
    *(
        Gate(
            f"256 MiB in shared memory {way} over 1 MiB",
            cost("shm", f"segment {way}, 256 MiB", f"segment {way}, 1 MiB"),
            2,
        )
        for way in ("to a worker", "from a worker", "there and back")
    ),
    *(
        Gate(
            f"{mib} MiB from the heap there and back over one warm copy",
            cost("shm", f"heap there and back, {mib} MiB", f"one copy, {mib} MiB"),
            1.3,
        )
        for mib in (64, 256)
    ),
    Gate(
        "a table of 1,000 columns, 64 MiB, to a worker, beyond one warm copy of each column",
        above("shm", "table of 1,000 columns, 64 MiB", "one copy of each column, 64 MiB"),
        5,
        "ms",
    ),
    *(
        Gate(f"{what} with shared memory over that without", cost("shmcalls", shm, stdio), 1.05)
        for what, shm, stdio in (
            ("no-op round trip", f"a call, {SHARED}", f"a call, {DEFAULT}"),
            ("no-op throughput", f"a call of 64, {SHARED}", f"a call of 64, {DEFAULT}"),
        )
    ),
    Gate(
        "the longest wait for the event loop while a large array is sent",
        median("stall", "while it is sent"),
        0.005,
        "s",
    ),
    Gate(
        "no-op round trip over gRPC on asyncio over bare grpclib",
        cost("grpc", GRPC_ON_ASYNCIO.name, GRPCLIB.name),
        0.9,
    ),
    Gate(
        "no-op round trip over gRPC on trio over bare grpclib (on asyncio)",
        cost("grpc", GRPC, GRPCLIB.name),
        1.1,
    ),
    *(
        Gate(
            f"no-op throughput over gRPC on {loop} over bare grpclib",
            speed("grpcload", row, GRPCLIB.name),
            1.5,
            at_least=True,
        )
        for loop, row in (("trio", GRPC), ("asyncio", GRPC_ON_ASYNCIO.name))
    ),
    Gate(
        "Execute of a worker, called by grpc.aio, over that of a bare grpclib server",
        cost("grpc", AIO_TO_SNAKEPIT.name, AIO_TO_GRPCLIB.name),
        1.25,
    ),
    Gate("no-op round trip over the floor", cost("roundtrip", DEFAULT, "floor"), 1.3, goal=True),
    Gate(
        "no-op throughput",
        rate("throughput", DEFAULT),
        60_000,
        "calls/s",
        at_least=True,
        goal=True,
    ),
)
