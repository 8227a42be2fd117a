"""Other ways to show an array to another process, each as its documentation advises.

`multiprocessing.shared_memory`: one block for all calls, written anew for each, whose name goes
through a pool. Ray: an actor; what is put into the store is handed on as a reference. Dask:
large arrays are scattered, small ones go with the call.
"""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import psutil

from benchmarks import _work
from benchmarks._contender import Calls, Contender
from benchmarks._peers import STANDARD, Futures, spawning

SCATTER_BYTES_MIN: Final = 2**20
STORE_SHARE: Final = 0.25  # of the memory that is free, for Ray's objects
END_S_MAX: Final = 10.0
# It tells nobody, asks for no token, writes nothing outside of its folder.
RAY_ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class SharedBlock:
    """A block of `multiprocessing.shared_memory` and the array in it."""

    def __init__(self, size: int) -> None:
        import numpy

        shared_memory = importlib.import_module("multiprocessing.shared_memory")
        self._block: Any = shared_memory.SharedMemory(create=True, size=size)
        self.array: Any = numpy.ndarray(size, "u1", buffer=self._block.buf)
        self.name: str = self._block.name

    def close(self) -> None:
        """Give it back. Nobody may look at the array any more."""
        del self.array
        self._block.close()
        self._block.unlink()


class SharedMemory(Futures):
    """`multiprocessing.shared_memory`, by hand: names travel, and arrays stay where they are."""

    def load(self) -> None:
        super().load()
        importlib.import_module("numpy")

    @asynccontextmanager
    async def open(self, workers: int) -> AsyncGenerator[Calls]:
        blocks: dict[bool, SharedBlock] = {}  # one for each way to call

        def block(size: int, *, is_shared: bool) -> SharedBlock:
            if is_shared not in blocks or len(blocks[is_shared].array) != size:
                if is_shared in blocks:
                    blocks.pop(is_shared).close()
                blocks[is_shared] = SharedBlock(size)
            return blocks[is_shared]

        def share(array: Any) -> SharedBlock:
            shared = block(len(array), is_shared=True)
            shared.array[:] = array
            return shared

        async with super().open(workers) as calls:
            run = calls.run
            assert run is not None

            async def echo(value: Any) -> Any:
                shared = value
                if not isinstance(value, SharedBlock):
                    shared = block(len(value), is_shared=False)
                    shared.array[:] = value
                await run(_work.attach, shared.name)
                return shared.array

            try:
                yield Calls(calls.nothing, echo, calls.pause, share=share)
            finally:
                for used in blocks.values():
                    used.close()


class Ray(Contender):
    """An actor of Ray's, on a cluster of this process's own."""

    backend = "asyncio"

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self) -> None:
        os.environ |= RAY_ENVIRONMENT
        self._ray = importlib.import_module("ray")

    @asynccontextmanager
    async def open(self, workers: int) -> AsyncGenerator[Calls]:
        folder = tempfile.mkdtemp(prefix="ray-")
        ray = self._ray
        try:
            ray.init(
                address="local",
                num_cpus=workers,
                include_dashboard=False,
                object_store_memory=int(STORE_SHARE * psutil.virtual_memory().available),
                log_to_driver=False,
                logging_level="warning",
                _node_ip_address="127.0.0.1",
                _temp_dir=folder,
            )

            class Worker:
                def run(self, func: Any, *args: Any) -> Any:
                    return func(*args)

            actor = ray.remote(num_cpus=1)(Worker).remote()

            async def run(func: Any, *args: Any) -> Any:
                return await actor.run.remote(func, *args)

            yield Calls.through(run, share=ray.put)
        finally:
            started = psutil.Process().children(recursive=True)
            ray.shutdown()
            _, left = psutil.wait_procs(started, END_S_MAX)
            for process in left:
                process.kill()
            shutil.rmtree(folder, ignore_errors=True)


class Dask(Contender):
    """A local cluster of Dask's, with a process for each worker."""

    backend = "asyncio"

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self) -> None:
        self._distributed = importlib.import_module("distributed")

    @asynccontextmanager
    async def open(self, workers: int) -> AsyncGenerator[Calls]:
        distributed = self._distributed
        with tempfile.TemporaryDirectory() as folder:
            async with (
                distributed.LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address=None,
                    memory_limit=0,
                    local_directory=folder,
                    asynchronous=True,
                ) as cluster,
                distributed.Client(cluster, asynchronous=True) as client,
            ):

                async def run(func: Any, *args: Any) -> Any:
                    if args and getattr(args[0], "nbytes", 0) >= SCATTER_BYTES_MIN:
                        args = (await client.scatter(args[0], hash=False),)
                    return await client.submit(func, *args, pure=False)

                yield Calls.through(run)


ARRAY_PEERS: Final[tuple[Contender, ...]] = (
    SharedMemory("shared_memory by hand", STANDARD, spawning),
    Ray("Ray"),
    Dask("Dask"),
)
