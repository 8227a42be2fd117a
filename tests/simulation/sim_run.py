"""Running a plan: a pool in virtual time, its callers, and what they saw."""

from __future__ import annotations

import trio
from sim_callers import make_steps
from sim_draw import draw_plan
from sim_host import Host
from sim_plan import PROBE_S
from sim_sessions import of_kept_states
from sim_spies import making, spying
from sim_tools import SimTools, answer, set_world
from sim_venom import add_venom
from sim_world import World

from snakepit import Pool, SnakepitError, open_pool
from snakepit.pool._core import PoolCore
from snakepit.testing import Garbage, MemoryTransport, Silence, run_seeded
from snakepit.testing._seeded import _tree

PATIENCE_S = 30.0  # of a calm ending, with the callers and then with the workers
PROBES = 10_000  # the numbers of the probes begin here
VIRTUAL_S_MAX = 5_000.0


class BodyError(Exception):
    """Raised out of the pool's block, by those whose plan says so."""


def simulate(seed: int) -> World:
    """Run the plan of this seed. What the run itself raised is among `wrong`."""
    world = World(add_venom(draw_plan(seed)))
    set_world(world)
    with spying(world):
        try:
            run_seeded(seed, lambda _: Simulation(world).run(), virtual_s_max=VIRTUAL_S_MAX)
        except Exception as error:
            world.wrong.append(f"the run raised {describe(error)}")
    return world


def describe(error: BaseException) -> str:
    """The errors at the bottom of it, each with the place that raised it."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(map(describe, error.exceptions)))
    text = f"{type(error).__name__}: {error}"
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is not None:
        code = frame.tb_frame.f_code
        text += f" ({code.co_filename.rpartition('/')[2]}:{frame.tb_lineno} {code.co_qualname})"
    return text


class Simulation:
    """One run."""

    def __init__(self, world: World) -> None:
        self.world, self.plan = world, world.plan

    async def run(self) -> None:
        world = self.world
        before = all_tasks()
        async with trio.open_nursery() as outsiders:
            try:
                with trio.CancelScope() as around:
                    transport = MemoryTransport(faults=world.meet)
                    async with open_pool(
                        SimTools, transport=transport, name="p", **self.plan.options
                    ) as pool:
                        await self.body(pool, outsiders, around)
            except BodyError:
                world.note("block", "BodyError")
            except SnakepitError as error:
                world.note("block", type(error).__name__)
                self.check_start_error(error)
            else:
                world.note("block", "cancelled" if around.cancelled_caught else "left")
            world.closed_at = trio.current_time()
        left = all_tasks() - before
        if left:
            world.is_wrong(f"tasks are left: {[task.name for task in left]}")

    def check_start_error(self, error: SnakepitError) -> None:
        if not self.world.culprits:
            self.world.is_wrong(f"open_pool raised without a reason: {describe(error)}")

    async def body(self, pool: Pool, outsiders: trio.Nursery, around: trio.CancelScope) -> None:
        plan, world = self.plan, self.world
        world.note("open")
        Host(world, pool)
        for caller in plan.callers:
            if caller.outsider:
                outsiders.start_soon(make_steps, world, pool, caller)
        async with trio.open_nursery() as insiders:
            if plan.watches_ready:
                insiders.start_soon(self.watch_ready, pool)
            for caller in plan.callers:
                if not caller.outsider:
                    insiders.start_soon(make_steps, world, pool, caller)
            if plan.ending == "calm":
                insiders.cancel_scope.deadline = trio.current_time() + PATIENCE_S
            else:
                await trio.sleep(plan.end_at_s)
                (around if plan.ending == "cancel" else insiders.cancel_scope).cancel()
        if plan.ending == "calm" and insiders.cancel_scope.cancelled_caught:
            # A worker that says nothing, or that waits for the rest of what was garbage, is
            # one that nothing ends.
            faults = [fault for _, fault in world.faults.happened]
            if not any(isinstance(fault, Silence | Garbage) for fault in faults):
                world.is_wrong(f"calls had not ended after {PATIENCE_S:g} s")
        if plan.ending == "raise":
            raise BodyError
        if plan.ending == "calm":
            await self.show_that_all_is_well(pool)

    async def watch_ready(self, pool: Pool) -> None:
        try:
            with trio.move_on_after(5):
                await pool.ready()
                if pool.stats().workers < self.plan.options["size"]:
                    self.world.is_wrong("ready() returned with workers that are not")
        except SnakepitError as error:
            self.check_start_error(error)

    # -- a calm ending ---------------------------------------------------------------------------

    async def show_that_all_is_well(self, pool: Pool) -> None:
        """With nothing more to go wrong, each worker takes a call, all of them at once."""
        world, core = self.world, pool._core
        world.faults.enabled = False
        world.starts.clear()
        world.note("calm")
        # Outsiders' calls, on workers that say nothing any more, may go on for ever.
        if is_broken(core) or not is_quiet(pool):
            return
        # A worker that is silent, or lost its place, is found out by a call that times out.
        await self.probe(pool, core.settings.size, strict=False)
        with trio.move_on_after(PATIENCE_S) as patience:
            while not is_broken(core) and not all(s.is_ready or s.given_up for s in core.slots):
                await core.progress.wait()
        if patience.cancelled_caught:
            world.is_wrong(f"not all slots are filled again: {pool.workers()}")
        left = sum(not slot.given_up for slot in core.slots)
        if left and is_quiet(pool):
            await self.probe(pool, left, strict=True)

    async def probe(self, pool: Pool, count: int, *, strict: bool) -> None:
        began = trio.current_time()
        workers = set()

        async def one(number: int) -> None:
            order = {"call": number, "seconds": PROBE_S, "how": "return", "extra": 0.0}
            making.set(number)
            try:
                value = await pool.execute("work", {"order": order}, timeout=PROBE_S + 1.5)
            except SnakepitError as error:
                self.world.probe_errors[type(error).__name__] += 1
                if strict:
                    self.world.is_wrong(f"a probe failed: {describe(error)}")
            else:
                workers.add(self.world.runs[number][0].worker)
                if value != answer(number):
                    self.world.is_wrong(f"a probe got {value!r}")

        alone = self.is_alone() and pool.stats().busy == 0
        async with trio.open_nursery() as nursery:
            for position in range(count):
                nursery.start_soon(one, PROBES * (1 + strict) + position)
        if strict and alone:
            took = trio.current_time() - began
            if len(workers) != count or took > PROBE_S + 1e-6:
                self.world.is_wrong(f"{count} probes ran on {sorted(workers)} in {took:g} s")
            for problem in of_kept_states(self.world.workers, pool._core):
                self.world.is_wrong(problem)

    def is_alone(self) -> bool:
        """No outsider makes calls meanwhile."""
        return all(
            caller.number in self.world.done for caller in self.plan.callers if caller.outsider
        )


def is_broken(core: PoolCore) -> bool:
    return core.broken is not None


def is_quiet(pool: Pool) -> bool:
    stats = pool.stats()
    return not stats.queued and not stats.busy


def all_tasks() -> set[trio.lowlevel.Task]:
    root = trio.lowlevel.current_root_task()
    assert root is not None
    return set(_tree(root))
