"""One round: a pool, its callers, what goes wrong meanwhile, and an end."""

from __future__ import annotations

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
from chaos_quiet import Calm
from chaos_tools import AsyncChaos, Chaos
from chaos_world import Burial, World, now

from snakepit import Pool, WorkerDiedError, open_pool
from snakepit.pool._core import PoolCore
from snakepit.pool._worker import Worker

PATIENCE_S = 60.0  # until all calls of a calm end have ended


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
            outsiders.start_soon(world.pulse.beat, name="pulse")
            try:
                with anyio.CancelScope() as around:
                    adapter = options.pop("adapter", None)
                    async with open_pool(adapter, name="chaos", **options) as pool:
                        note_burials(pool._core, world)
                        Host(world, pool)
                        havoc = Havoc(world, pool, Random(f"havoc {plan.seed}"), elsewhere)
                        calm = Calm(world, pool, havoc, self.caller_of(pool, 0), elsewhere)
                        if plan.ending == "calm":
                            await calm.begin()
                        await self.body(pool, havoc, calm, outsiders, around)
            except BodyError:
                pass
            finally:
                world.closed_at = now()
                if havoc is not None:
                    havoc.close()
            outsiders.cancel_scope.cancel()

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
        elsewhere = Elsewhere(world)
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
        calm: Calm,
        outsiders: anyio.abc.TaskGroup,
        around: anyio.CancelScope,
    ) -> None:
        plan, world = self.plan, self.world
        try:
            async with anyio.create_task_group() as insiders:
                insiders.start_soon(havoc.run)
                where = outsiders if plan.ending == "leave" else insiders
                self.callers_left = plan.callers
                for number in range(plan.callers):
                    where.start_soon(self.caller, self.caller_of(pool, number))
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
            await calm.end()
            world.ending_at = world.closing_at = now()

    def caller_of(self, pool: Pool, number: int) -> Caller:
        return Caller(self.world, pool, Random(f"{self.plan.seed} {number}"), self.numbers)

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


def note_burials(core: PoolCore, world: World) -> None:
    """Hear what the pool says of each worker that is gone."""
    gone = core.gone

    def heard(worker: Worker, death: WorkerDiedError) -> None:
        world.burials[worker.id] = Burial(death, now(), core.closing.is_set())
        gone(worker, death)

    core.gone = heard  # type: ignore[method-assign]
