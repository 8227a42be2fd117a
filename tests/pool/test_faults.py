"""Deaths, delays, silence and garbage between a pool and its workers, on purpose."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from _backends import virtual_time
from memory_adapters import Pure

from snakepit import (
    Adapter,
    CallTimeoutError,
    ConfigError,
    CrashBarrier,
    Pool,
    ProtocolError,
    SnakepitError,
    Startup,
    Stop,
    WorkerDiedError,
    WorkerStartError,
    open_pool,
    tool,
)
from snakepit.protocol import Cancel, encode_message, frame
from snakepit.testing import (
    Delay,
    Die,
    Fault,
    FaultPlan,
    Faults,
    Garbage,
    MemoryTransport,
    Passage,
    Silence,
)

BRISK = Stop(cancel_grace=1, term_grace=1, drain_timeout=1)


class Counting(Adapter):
    ran: list[int] = []  # noqa: RUF012 - for the test to see

    @tool
    async def count(self, number: int) -> int:
        self.ran.append(number)
        return number

    @tool(idempotent=True)
    async def again(self, number: int) -> int:
        self.ran.append(number)
        return number

    @tool
    async def items(self, stop: int) -> Any:
        for number in range(stop):
            yield number


def faulty_pool(plan: FaultPlan | None, adapter: Any = Pure, **options: Any) -> Any:
    options = {"size": 1, "stop": BRISK} | options
    return open_pool(adapter, transport=MemoryTransport(faults=plan), **options)


def recorder(seen: list[Passage]) -> FaultPlan:
    def note(passage: Passage) -> None:
        seen.append(passage)

    return note


@virtual_time
async def test_a_plan_sees_every_message_with_its_worker_number_and_direction() -> None:
    seen: list[Passage] = []
    async with faulty_pool(recorder(seen)) as pool:
        await pool.execute("echo", {"value": 1})
    assert [(p.worker, p.number, p.direction, p.kind) for p in seen] == [
        (1, 1, "to_host", "Hello"),
        (1, 2, "to_worker", "Start"),
        (1, 3, "to_host", "Ready"),
        (1, 4, "to_worker", "Call"),
        (1, 5, "to_host", "Result"),
        (1, 6, "to_worker", "Shutdown"),
        (1, 7, "to_host", "Goodbye"),
    ]


class DieAt:
    """The worker dies at the n-th message of the whole run."""

    def __init__(self, number: int, when: Any) -> None:
        self.left, self.when = number, when

    def __call__(self, passage: Passage) -> Fault | None:
        self.left -= 1
        return Die(self.when) if self.left == 0 else None


@virtual_time
@pytest.mark.parametrize("when", ["before", "within", "after"])
async def test_a_death_at_each_message_leaves_the_pool_whole(when: str) -> None:
    """Each call ends, each one that is not idempotent runs at most once, and the pool serves on."""
    number, happened = 0, True
    while happened:
        number += 1
        plan, Counting.ran = DieAt(number, when), []
        async with faulty_pool(plan, Counting, size=2, min_ready=0) as pool:
            outcomes = await some_life(pool)
            assert await pool.execute("again", {"number": 100}) == 100
        happened = plan.left <= 0
        assert number < 200
        for call, outcome in enumerate(outcomes):
            assert outcome == call or isinstance(outcome, WorkerDiedError)
            assert Counting.ran.count(call) <= 1
        assert sum(isinstance(outcome, WorkerDiedError) for outcome in outcomes) <= 1
    assert number > 20, "so many messages were there to die at"


async def some_life(pool: Pool) -> list[Any]:
    outcomes: list[Any] = [None] * 6

    async def call(number: int) -> None:
        try:
            outcomes[number] = await pool.execute("count", {"number": number})
        except SnakepitError as error:
            outcomes[number] = error

    async def stream() -> None:
        try:
            async with pool.stream("items", {"stop": 8}, window=2) as items:
                assert [item async for item in items] == list(range(8))
        except WorkerDiedError:
            pass

    async with anyio.create_task_group() as tasks:
        for number in range(len(outcomes)):
            tasks.start_soon(call, number)
        tasks.start_soon(stream)
        with anyio.move_on_after(0):
            await pool.execute("again", {"number": 99})
    return outcomes


@virtual_time
async def test_a_death_has_the_exit_code_that_it_is_given() -> None:
    async with faulty_pool(Faults({"Call": [Die(exit_code=5), Die()]})) as pool:
        with pytest.raises(WorkerDiedError) as caught:
            await pool.execute("echo")
        assert (caught.value.exit_code, caught.value.signal) == (5, None)
        with pytest.raises(WorkerDiedError) as caught:
            await pool.execute("echo")
        assert (caught.value.exit_code, caught.value.signal) == (None, 9)
        await pool.execute("echo")


@virtual_time
async def test_a_result_that_was_written_counts_although_its_worker_died_then() -> None:
    async with faulty_pool(Faults({"Result": Die("after")})) as pool:
        assert await pool.execute("echo", {"value": 3}) == 3
        assert await pool.execute("echo", {"value": 4}) == 4
        assert pool.stats().restarts == 1


@virtual_time
@pytest.mark.parametrize("name", ["Call", "Result"])
async def test_a_delay_is_as_long_as_it_says_and_keeps_the_order(name: str) -> None:
    async with faulty_pool(Faults({name: [Delay(10), None]})) as pool:
        began = anyio.current_time()
        assert await pool.execute("echo", {"value": 3}) == 3
        assert anyio.current_time() - began == pytest.approx(10)
        assert await pool.execute("echo", {"value": 4}) == 4
        assert anyio.current_time() - began == pytest.approx(10)


@virtual_time
async def test_a_late_hello_is_a_start_error() -> None:
    with pytest.raises(WorkerStartError, match="did not say hello within 5 s"):
        async with faulty_pool(Faults({"Hello": Delay(6)}), startup=Startup(timeout=5)):
            pass


@virtual_time
@pytest.mark.parametrize("name", ["Call", "Result"])
async def test_a_silent_worker_is_ended_by_the_whole_ladder(name: str) -> None:
    """It hears neither Cancel nor SIGTERM."""
    async with faulty_pool(Faults({name: Silence()})) as pool:
        began = anyio.current_time()
        with pytest.raises(CallTimeoutError):
            await pool.execute("echo", timeout=10)
        assert anyio.current_time() - began == pytest.approx(10 + 1 + 1, abs=0.01)
        assert await pool.execute("echo", {"value": 4}) == 4


@virtual_time
async def test_a_worker_that_is_silent_when_the_pool_closes_is_gone_in_time() -> None:
    async with faulty_pool(Faults({"Shutdown": Silence()})):
        began = anyio.current_time()
    assert anyio.current_time() - began == pytest.approx(2, abs=0.5)


@virtual_time
@pytest.mark.parametrize("instead", [True, False])
async def test_garbage_to_the_host_condemns_the_worker(instead: bool) -> None:
    garbage = Garbage(b"\xff" * 10, instead=instead)
    async with faulty_pool(Faults({"Result": garbage})) as pool:
        if instead:
            with pytest.raises(WorkerDiedError, match="broke the protocol"):
                await pool.execute("echo", {"value": 3})
        else:
            assert await pool.execute("echo", {"value": 3}) == 3
        while pool.stats().restarts == 0:  # a call may still be given to the one that is broken
            await anyio.sleep(0.01)
        assert await pool.execute("echo", {"value": 4}) == 4


@virtual_time
async def test_garbage_to_the_worker_ends_it_with_a_complaint() -> None:
    async with faulty_pool(Faults({"Call": Garbage(b"\xff" * 10)})) as pool:
        with pytest.raises(WorkerDiedError, match="the maximum is") as caught:
            await pool.execute("echo", {"value": 3})
        assert "a frame claims" in caught.value.stderr_tail
        assert await pool.execute("echo", {"value": 4}) == 4


@virtual_time
async def test_garbage_in_the_place_of_hello_is_a_start_error() -> None:
    with pytest.raises(WorkerStartError, match="not the snakepit protocol"):
        async with faulty_pool(Faults({"Hello": Garbage(b"HTTP/1.1 200 OK\r\n")})):
            pass


@virtual_time
@pytest.mark.parametrize(
    ("garbage", "complaint"),
    [(b"\xff" * 4, "a frame claims"), (frame(encode_message(Cancel(1))), "did not say Start")],
)
async def test_garbage_in_the_place_of_start_is_a_start_error(
    garbage: bytes, complaint: str
) -> None:
    with pytest.raises(WorkerStartError, match="ended before it was ready") as caught:
        async with faulty_pool(Faults({"Start": Garbage(garbage)})):
            pass
    assert complaint in caught.value.stderr_tail


async def test_faults_work_on_the_real_clock_too() -> None:
    barrier = CrashBarrier(max_retries=2)
    plan = Faults({"Call": [Die(), Die("after")], "Result": [Delay(0.01), None]})
    async with faulty_pool(plan, Counting, crash_barrier=barrier) as pool:
        assert await pool.execute("again", {"number": 1}) == 1
        assert pool.stats().restarts == 2
    assert plan.left == {"Call": [], "Result": []} or plan.left["Call"] == []


def test_a_script_names_messages_that_there_are() -> None:
    with pytest.raises(ConfigError, match="Resultt"):
        Faults({"Resultt": Die()})
    plan = Faults({"Call": [None, Die()], "Result": Delay(1)})
    call = Passage(1, 4, "to_worker", message=None)  # type: ignore[arg-type]
    assert plan(call) is None
    assert plan.left == {"Call": [None, Die()], "Result": [Delay(1)]}


def test_errors_of_the_protocol_are_ours() -> None:
    assert issubclass(ProtocolError, SnakepitError)
