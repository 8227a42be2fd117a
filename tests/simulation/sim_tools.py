"""The tools of the simulation. They tell the world when they begin and when they end.

Workers in memory run in this process, so one world is enough.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import trio
from sim_host import help_for
from sim_plan import CallPlan
from sim_world import Run, World, worker_id

from snakepit import Adapter, HostToolError, context, tool
from snakepit.testing import crash

BRIEF_GRACE_S = 0.05
LIMIT_S = 0.7

world: World


def set_world(new: World) -> None:
    global world
    world = new


def answer(call: int, ballast: int = 0) -> Any:
    text = f"answer to {call}"
    return (text, bytes(ballast)) if ballast else text


def answer_of(plan: CallPlan) -> Any:
    return answer(plan.number, plan.ballast)


def item(call: int, number: int) -> str:
    return f"item {number} of {call}"


class SimulatedError(ValueError):
    pass


class SimTools(Adapter):
    """Async tools that do as they are told, `how`, after some seconds."""

    async def initialize(self) -> None:
        how = world.way_to_start()
        world.note("initialize", worker_id(), how)
        if how != "ready":
            world.culprits.setdefault(worker_id(), f"its start: {how}")
        match how:
            case "slow":
                await trio.sleep(0.5)
            case "raise":
                raise LookupError("no model")
            case "crash":
                crash(4)
            case "hang":
                await trio.sleep_forever()

    async def cleanup(self) -> None:
        world.note("cleanup", worker_id())

    @tool
    async def work(self, order: dict) -> Any:
        return await behave(**order)

    @tool(idempotent=True)
    async def again(self, order: dict) -> Any:
        return await behave(**order)

    @tool(on_cancel="kill")
    async def fragile(self, order: dict) -> Any:
        return await behave(**order)

    @tool(cancel_grace=BRIEF_GRACE_S)
    async def brief(self, order: dict) -> Any:
        return await behave(**order)

    @tool(timeout=LIMIT_S)
    async def limited(self, order: dict) -> Any:
        return await behave(**order)

    @tool
    async def eat(self, order: dict, food: AsyncIterator[int]) -> Any:
        call, how = order["call"], order["how"]
        with world.run_of(call) as run:
            if world.food[call].begun:
                world.is_wrong(f"call {call} is made again, and its input has been pulled")
            meal = world.calls[call].meal
            assert meal is not None
            bites = meal.bites
            while bites is None or world.eaten[call] < bites:
                bite = await anext(food, None)
                if bite is None:
                    break
                # Garbage in the place of an item, if it is short, is taken for the begin of one.
                garbled = world.culprits.get(run.worker, "").startswith("Garbage")
                if bite != world.eaten[call] and not garbled:
                    world.is_wrong(f"call {call} gets {bite} of its input for {world.eaten[call]}")
                world.eaten[call] += 1
                await pause(order["seconds"], how, order["extra"])
            finish(run, how)
            return answer(call)

    @tool
    async def confer(self, order: dict) -> Any:
        call, how = order["call"], order["how"]
        with world.run_of(call) as run:
            talk = world.calls[call].talk
            assert talk is not None
            if talk.at_once:
                async with trio.open_nursery() as nursery:
                    for number in range(talk.count):
                        nursery.start_soon(ask, call, number, talk.how)
            else:
                for number in range(talk.count):
                    await ask(call, number, talk.how)
            await pause(order["seconds"], how, order["extra"])
            finish(run, how)
            return answer(call)

    @tool
    async def venom_a(self) -> Any:
        return await self.venom()

    @tool
    async def venom_b(self) -> Any:
        return await self.venom()

    async def venom(self) -> Any:
        return await behave(**world.calls[world.number_of(context().call_id)].order)

    @tool
    async def items(self, order: dict) -> AsyncGenerator[str, None]:
        call, how = order["call"], order["how"]
        with world.run_of(call) as run:
            window = world.calls[call].window
            for number in range(order["items"]):
                await pause(order["seconds"], how, order["extra"])
                world.yielded[call] += 1
                # One that waits for credit is in the worker's hands.
                unread = world.yielded[call] - world.taken[call]
                if unread > window + 1:
                    world.is_wrong(f"stream {call}: {unread} items unread, window {window}")
                yield item(call, number)
            await pause(order["seconds"], how, order["extra"])
            finish(run, how)


async def ask(call: int, number: int, how: str) -> None:
    name = "help_plainly" if how == "plain" else "help"
    try:
        text = await context().acall_host(name, {"call": call, "number": number})
    except HostToolError as error:
        if how in ("return", "slow_stop", "plain") or (
            how == "raise" and error.type != "sim_host.HelpError"
        ):
            world.is_wrong(f"call {call} is told of {error!r} in place of help")
    else:
        if how == "raise" or text != help_for(call, number):
            world.is_wrong(f"call {call} asks for help {number} and is told {text!r}")
    world.helped[call] += 1


async def behave(
    call: int, seconds: float, how: str, extra: float, updates: int = 0, ballast: bytes = b""
) -> Any:
    with world.run_of(call) as run:
        try:
            for number in range(1, updates + 1):
                context().progress(number, updates, f"call {call}")
                await pause(seconds / (updates + 1), how, extra)
            await pause(seconds / (updates + 1), how, extra)
        except trio.Cancelled:
            if how == "convert":
                raise RuntimeError("in place of the cancellation") from None
            if how != "swallow":
                raise
        finish(run, how)
        return object() if how == "unencodable" else answer(call, len(ballast))


async def pause(seconds: float, how: str, extra: float) -> None:
    if not seconds:
        return
    try:
        await trio.sleep(seconds)
    except trio.Cancelled:
        if how in ("slow_stop", "stubborn"):
            worker = worker_id()
            grace = world.plan.stop.cancel_grace
            if how == "stubborn" or extra >= grace:
                world.culprits.setdefault(worker, "a stubborn tool")
            with trio.CancelScope(shield=True):
                await trio.sleep(extra + grace if how == "stubborn" else extra)
        raise


def finish(run: Run, how: str) -> None:
    if how == "raise":
        run.how = "raised"
        raise SimulatedError(f"by {run.call}")
    if how == "crash":
        world.culprits.setdefault(run.worker, "a crash")
        crash(3)
    run.how = "returned"
