"""Running a plan: a pool in virtual time, its callers, and what they saw."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import trio
from sim_plan import PROBE_S, CallerPlan, CallPlan, draw_plan
from sim_tools import Outcome, SimTools, World, answer, item, set_world

from snakepit import Pool, SnakepitError, open_pool
from snakepit.launchers._in_process import InProcessWorker
from snakepit.pool._core import PoolCore
from snakepit.testing import Garbage, MemoryTransport, Silence, run_seeded
from snakepit.testing._seeded import _tree
from snakepit.transports._memory import MemoryLink

PATIENCE_S = 30.0  # of a calm ending, with the callers and then with the workers
PROBES = 10_000  # the numbers of the probes begin here
VIRTUAL_S_MAX = 5_000.0

# Which call of the plan the task is making.
making: ContextVar[int] = ContextVar("making")


class BodyError(Exception):
    """Raised out of the pool's block, by those whose plan says so."""


def simulate(seed: int) -> World:
    """Run the plan of this seed. What the run itself raised is among `wrong`."""
    world = World(draw_plan(seed))
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
        for caller in plan.callers:
            if caller.outsider:
                outsiders.start_soon(self.call_all, pool, caller)
        async with trio.open_nursery() as insiders:
            if plan.watches_ready:
                insiders.start_soon(self.watch_ready, pool)
            for caller in plan.callers:
                if not caller.outsider:
                    insiders.start_soon(self.call_all, pool, caller)
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

    # -- the callers ---------------------------------------------------------------------------

    async def call_all(self, pool: Pool, caller: CallerPlan) -> None:
        if caller.together:
            async with trio.open_nursery() as nursery:
                for call in caller.calls:
                    nursery.start_soon(self.call, pool, call)
        else:
            for call in caller.calls:
                await self.call(pool, call)

    async def call(self, pool: Pool, plan: CallPlan) -> None:
        """Make the call and note how it ended. It does end, or the run is stuck."""
        world = self.world
        await trio.sleep(plan.pause_s)
        making.set(plan.number)
        asked = trio.current_time()
        world.note("asks", plan.number, plan.tool)
        kind, value, failure = "cancelled", None, None
        scope = trio.CancelScope()
        if plan.cancel_after_s is not None:
            scope.deadline = asked + plan.cancel_after_s
        try:
            with scope:
                if plan.items is None:
                    value = await pool.execute(
                        plan.tool, plan.params(), timeout=plan.timeout, idempotent=plan.idempotent
                    )
                    kind = "value"
                else:
                    kind = await self.read(pool, plan)
        except SnakepitError as error:
            kind, failure = type(error).__name__, error
            # The builtin twin of a ToolError bears another name.
            if type(error).__module__ == "builtins" or hasattr(error, "traceback"):
                kind = "ToolError" if hasattr(error, "type") else kind
        finally:
            world.note("ended", plan.number, kind)
            scheduler = pool._core.scheduler
            if scheduler.queued() and scheduler.idle:
                world.is_wrong(f"{len(scheduler.queued())} calls wait, {scheduler.idle} idle")
            if plan.number in world.outcomes:
                world.is_wrong(f"call {plan.number} ended twice")
            if world.running[plan.number]:
                world.is_wrong(f"call {plan.number} ended ({kind}) while its tool runs")
            world.outcomes[plan.number] = Outcome(
                plan.number,
                kind,
                asked,
                trio.current_time(),
                value,
                failure,
                scope.deadline if scope.cancel_called else None,
            )

    async def read(self, pool: Pool, plan: CallPlan) -> str:
        world, number = self.world, plan.number
        async with pool.stream(
            plan.tool, plan.params(), timeout=plan.timeout, window=plan.window
        ) as stream:
            while plan.read is None or world.taken[number] < plan.read:
                try:
                    chunk = await anext(stream)
                except StopAsyncIteration:
                    return "items"
                if chunk != item(number, world.taken[number]):
                    world.is_wrong(f"stream {number}: {chunk!r} is item {world.taken[number]}")
                world.taken[number] += 1
                await trio.sleep(plan.read_pause_s)
        return "left"

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

    def is_alone(self) -> bool:
        """No outsider makes calls meanwhile."""
        outsiders = [call for c in self.plan.callers if c.outsider for call in c.calls]
        return all(call.number in self.world.outcomes for call in outsiders)


def is_broken(core: PoolCore) -> bool:
    return core.broken is not None


def is_quiet(pool: Pool) -> bool:
    stats = pool.stats()
    return not stats.queued and not stats.busy


def all_tasks() -> set[trio.lowlevel.Task]:
    root = trio.lowlevel.current_root_task()
    assert root is not None
    return set(_tree(root))


@contextmanager
def spying(world: World) -> Generator[None]:
    """Note what the pool's core does; the tests of nothing else see this."""
    original = {name: getattr(PoolCore, name) for name in ("submit", "settle", "gone", "close")}

    def submit(core: PoolCore, tool: str, *args: Any, **kwargs: Any) -> Any:
        call = original["submit"](core, tool, *args, **kwargs)
        world.accepted[making.get()] = call
        return call

    def settle(core: PoolCore, call: Any) -> None:
        world.settled[call.id] += 1
        if call.worker is not None and call.id in call.worker.seat.calls:
            world.let_go |= {n for n, made in world.accepted.items() if made is call}
        original["settle"](core, call)

    def gone(core: PoolCore, worker: Any, death: Any) -> None:
        world.note("buried", worker.id, death.reason)
        world.buried[worker.id] = (trio.current_time(), death.reason)
        original["gone"](core, worker, death)

    def close(core: PoolCore) -> None:
        if world.closing_at is None:
            world.closing_at = trio.current_time()
            world.core = core  # type: ignore[attr-defined]
            world.note("closing")
        original["close"](core)

    make = InProcessWorker.__init__

    def made(self: InProcessWorker, link: MemoryLink, adapter: Any, worker_id: str) -> None:
        world.worker_ids[link.ordinal] = worker_id
        make(self, link, adapter, worker_id)

    for spy in (submit, settle, gone, close):
        setattr(PoolCore, spy.__name__, spy)
    InProcessWorker.__init__ = made  # type: ignore[method-assign]
    try:
        yield
    finally:
        InProcessWorker.__init__ = make  # type: ignore[method-assign]
        for name, function in original.items():
            setattr(PoolCore, name, function)
