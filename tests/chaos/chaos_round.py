"""One round: a pool, its callers, what goes wrong meanwhile, and an end."""

from __future__ import annotations

import gc
import itertools
import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import anyio
from chaos_callers import Caller, Host
from chaos_draw import Plan
from chaos_elsewhere import Elsewhere
from chaos_havoc import Havoc
from chaos_tools import AsyncChaos, Chaos, answer
from chaos_world import World, now

from snakepit import Pool, SnakepitError, WorkerStartError, open_pool

PATIENCE_S = 60.0  # until all calls of a calm end have ended, and all workers are there again
PROBE_S = 0.3
CLOSING_SLACK_S = 20.0  # beyond the bound of a close: this machine has others to serve


class BodyError(Exception):
    """Raised out of the pool's block, by rounds that end so."""


def play(plan: Plan) -> World:
    """Run the round. What the run itself raised is among `wrong`."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        world = World(plan, Path(folder) / "journal")
        try:
            anyio.run(Round(world).run, backend=plan.backend)
        except Exception as error:
            world.is_wrong(f"the round raised {error!r}")
        world.read_journal()
    return world


class Round:
    """A pool, from its opening until it is closed."""

    def __init__(self, world: World) -> None:
        self.world, self.plan = world, world.plan
        self.random = Random(f"round {self.plan.seed}")
        self.numbers = itertools.count(1)
        self.callers_left = 0
        self.callers_done = anyio.Event()

    async def run(self) -> None:
        world, plan = self.world, self.plan
        havoc = None
        async with self.place() as (elsewhere, options), anyio.create_task_group() as outsiders:
            try:
                with anyio.CancelScope() as around:
                    adapter = options.pop("adapter", None)
                    async with open_pool(adapter, name="chaos", **options) as pool:
                        havoc = Havoc(world, pool, Random(f"havoc {plan.seed}"), elsewhere)
                        await self.body(pool, havoc, outsiders, around)
            except BodyError:
                pass
            finally:
                world.closed_at = now()
                if havoc is not None:
                    havoc.close()

    @asynccontextmanager
    async def place(self) -> AsyncGenerator[tuple[Elsewhere | None, dict[str, Any]]]:
        """Where the workers are, and the options of their pool."""
        world, plan = self.world, self.plan
        options = dict(plan.options)
        if plan.transport != "shm":
            del options["zero_copy"]
        if plan.transport != "connect":
            options["adapter"] = AsyncChaos if plan.has_async else Chaos
            options["adapter_args"] = (os.fspath(world.journal),)
            options["transport"] = plan.transport
            yield None, options
            return
        elsewhere = Elsewhere(plan, world.journal)
        options["connect"] = elsewhere.addresses
        del options["size"]
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(elsewhere.run)
                await elsewhere.until_all_serve()
                yield elsewhere, options
                tasks.cancel_scope.cancel()
        finally:
            elsewhere.close()

    async def body(
        self,
        pool: Pool,
        havoc: Havoc,
        outsiders: anyio.abc.TaskGroup,
        around: anyio.CancelScope,
    ) -> None:
        plan, world = self.plan, self.world
        Host(world, pool)
        try:
            async with anyio.create_task_group() as insiders:
                insiders.start_soon(havoc.run)
                where = outsiders if plan.ending == "leave" else insiders
                self.callers_left = plan.callers
                for number in range(plan.callers):
                    caller = Caller(world, pool, Random(f"{plan.seed} {number}"), self.numbers)
                    where.start_soon(self.caller, caller)
                await anyio.sleep(plan.seconds)
                world.is_over = True
                if plan.ending != "calm":
                    world.ending_at = now()
                if plan.ending == "cancel":
                    around.cancel()
                if plan.ending == "raise":
                    raise BodyError
                if plan.ending == "calm":
                    await self.wait_for_callers(pool)
                insiders.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            if group.split(BodyError)[1] is not None:
                raise
            raise BodyError from group
        finally:
            world.is_over = True
            world.closing_at = now()
            world.restarts = pool.stats().restarts
        if plan.ending == "calm":
            havoc.go_on_all()
            await self.show_that_all_is_well(pool, havoc)
            world.ending_at = world.closing_at = now()

    async def caller(self, caller: Caller) -> None:
        try:
            await caller.run()
        finally:
            caller.held.clear()
            self.callers_left -= 1
            if not self.callers_left:
                self.callers_done.set()

    async def wait_for_callers(self, pool: Pool) -> None:
        with anyio.move_on_after(PATIENCE_S):
            await self.callers_done.wait()
        if not self.callers_done.is_set():
            self.world.is_wrong(
                f"{self.callers_left} callers wait after {PATIENCE_S:g} s: {pool.workers()}, "
                f"{pool.stats()}"
            )

    # -- a calm ending ---------------------------------------------------------------------------

    async def show_that_all_is_well(self, pool: Pool, havoc: Havoc) -> None:
        """Every worker is there again and takes a call, all of them at once; nothing is kept."""
        world, size = self.world, self.plan.options["size"]
        with anyio.move_on_after(PATIENCE_S) as patience:
            # The pool has yet to hear of the end of one that was hit a moment ago.
            while any(worker.pid in havoc.ended for worker in pool.workers()) or not all(
                slot.is_ready for slot in pool._core.slots
            ):
                try:
                    await pool.ready()
                except WorkerStartError:  # one was hit while it started; it is started again
                    pass
                await anyio.sleep(0.05)
        if patience.cancelled_caught:
            world.is_wrong(f"not all workers are there again: {pool.workers()}")
            return
        stats = pool.stats()
        if stats.busy or stats.queued:
            world.is_wrong(f"nobody calls any more: {stats}")
        workers: list[int] = []
        async with anyio.create_task_group() as tasks:
            for number in range(size):
                tasks.start_soon(self.probe, pool, -1 - number, workers)
        core = pool._core
        if len(core.sessions):
            world.is_wrong(f"{len(core.sessions)} sessions are left")
        left = {
            "waiting": core.scheduler.waiting,
            "prefetched": core.scheduler.prefetched,
            "loaded": len(core.scheduler._loaded),
        }
        if any(left.values()):
            world.is_wrong(f"left in the pool: {left}")
        await self.show_that_memory_is_free(pool)

    async def probe(self, pool: Pool, number: int, workers: list[int]) -> None:
        try:
            text, _ = await pool.execute(
                "work", {"call": number, "how": "return", "seconds": PROBE_S}, timeout=PATIENCE_S
            )
        except SnakepitError as error:
            self.world.is_wrong(f"a probe failed: {error!r}")
        else:
            if text != answer(number):
                self.world.is_wrong(f"a probe got {text!r}")
            workers.append(number)

    async def show_that_memory_is_free(self, pool: Pool) -> None:
        """Of the shared memory nothing is used once nobody holds a value: a few calls settle it."""
        for attempt in range(50):
            gc.collect()
            memory = pool.stats().shared_memory
            if memory is None or not (memory.used_bytes or memory.leases):
                return
            await self.probe_shortly(pool, -100 - attempt)
        self.world.is_wrong(f"shared memory is still used: {pool.stats().shared_memory}")

    async def probe_shortly(self, pool: Pool, number: int) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(self.plan.options["size"]):
                params = {"call": number, "how": "return", "seconds": 0.01}
                tasks.start_soon(pool.execute, "work", params)
