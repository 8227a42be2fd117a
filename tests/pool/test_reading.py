"""Who reads what a worker says: its lone caller, or its own task; and every word is read."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count

import anyio
import pytest
from _backends import virtual_time
from msgspec import Raw

from snakepit import _busy_wait
from snakepit._busy_wait import LIMIT_S
from snakepit._loops import this_loop
from snakepit.errors import ProtocolError
from snakepit.pool._call import PendingCall
from snakepit.pool._deadlines import Deadlines
from snakepit.pool._reading import LINGER_S, Reading
from snakepit.protocol import Result, ToHost, ToWorker
from snakepit.testing._probes import Yields
from snakepit.transports import Channel

pytestmark = virtual_time


class Words(Channel):
    """A channel on which the test speaks for the worker. `readers`: who waits for it now."""

    def __init__(self, *, is_direct: bool) -> None:
        self.is_direct = is_direct
        self.say, self._heard = anyio.create_memory_object_stream[ToHost | Exception](100)
        self.readers: list[str] = []
        self.looks = self.waits = 0

    def receive_nowait(self) -> list[ToHost]:
        self.looks += 1
        try:
            word = self._heard.receive_nowait()
        except anyio.WouldBlock:
            return []
        assert not isinstance(word, Exception)
        return [word]

    async def receive(self) -> list[ToHost]:
        self.waits += 1
        name = anyio.get_current_task().name or ""
        self.readers.append(name)
        try:
            word = await self._heard.receive()
        finally:
            self.readers.remove(name)
        if isinstance(word, Exception):
            self.say.send_nowait(word)  # it is there for the next one, too
            raise word
        return [word]

    def send_nowait(self, message: ToWorker) -> bool:
        raise NotImplementedError

    def withdraw(self, message: ToWorker) -> bool:
        raise NotImplementedError

    async def send(self, message: ToWorker) -> None:
        raise NotImplementedError

    async def run(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.say.close()
        self._heard.close()


class Desk:
    """A `Reading` whose own task runs, with the calls that are due and the answers that came."""

    def __init__(self, *, is_direct: bool) -> None:
        self.channel = Words(is_direct=is_direct)
        self.due: set[int] = set()
        self.taken: list[int] = []
        self.guilty = False
        self.ended: BaseException | None = None
        self.deadlines = Deadlines()
        self.reading = Reading(
            self.channel,
            this_loop(),
            self.deadlines,
            take=self.take,
            is_quiet=lambda: not self.due,
        )

    def take(self, messages: list[ToHost]) -> bool:
        for message in messages:
            assert isinstance(message, Result)
            self.taken.append(message.id)
            self.due.discard(message.id)
        return not self.guilty

    def answer(self, number: int) -> None:
        self.channel.say.send_nowait(Result(number))

    async def read_as_caller(self) -> None:
        await self.reading.read_as_caller(PendingCall(1, "tool", Raw(), (), anyio.Event))

    async def run(self) -> None:
        try:
            await self.reading.run([])
        except (anyio.EndOfStream, ProtocolError) as error:
            self.ended = error

    async def fall_asleep(self) -> None:
        """Let the worker's task read an answer and find nothing due."""
        self.answer(0)
        await anyio.wait_all_tasks_blocked()
        assert self.reading.is_free
        assert self.channel.readers == []


@asynccontextmanager
async def open_desk(*, is_direct: bool = False) -> AsyncGenerator[Desk]:
    desk = Desk(is_direct=is_direct)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.deadlines.watch)
        tasks.start_soon(desk.run, name="worker")
        await anyio.wait_all_tasks_blocked()
        assert desk.channel.readers == ["worker"]
        assert not desk.reading.is_free
        yield desk
        tasks.cancel_scope.cancel()
    await desk.channel.aclose()


async def test_a_lone_caller_reads_its_answer_and_wakes_nobody() -> None:
    async with open_desk() as desk:
        await desk.fall_asleep()
        for number in (1, 2):
            desk.due.add(number)
            desk.answer(number)
            await desk.read_as_caller()
            assert desk.reading.is_free
        assert desk.taken == [0, 1, 2]


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there is more than one CPU; the time of a look is up after the first one."""
    monkeypatch.setattr(_busy_wait, "usable_cpus", lambda: 2)
    monkeypatch.setattr(_busy_wait, "perf_counter", count(0, LIMIT_S).__next__)


@pytest.mark.usefixtures("looking")
async def test_a_caller_lets_others_run_and_then_looks_for_its_answer_before_it_sleeps() -> None:
    async with open_desk(is_direct=True) as desk:
        await desk.fall_asleep()
        desk.channel.waits = 0
        desk.due.add(1)
        others_run = Yields(desk.read_as_caller, lambda: desk.answer(1))
        await others_run
        assert len(others_run.seen) == 1
        assert (desk.channel.looks, desk.channel.waits) == (1, 0)
        assert desk.taken == [0, 1]
        assert desk.reading.is_free


@pytest.mark.usefixtures("looking")
async def test_a_caller_that_has_looked_in_vain_sleeps_and_does_not_look_the_next_time() -> None:
    async with open_desk(is_direct=True) as desk, anyio.create_task_group() as tasks:
        await desk.fall_asleep()
        looks = []
        for number in (1, 2, 3):
            desk.due.add(number)
            tasks.start_soon(desk.read_as_caller, name="caller")
            await anyio.wait_all_tasks_blocked()
            assert desk.channel.readers == ["caller"]
            looks.append(desk.channel.looks)
            desk.answer(number)
            await anyio.wait_all_tasks_blocked()
        assert looks == [1, 1, 2]
        assert desk.taken == [0, 1, 2, 3]


@pytest.mark.usefixtures("looking")
async def test_a_caller_that_is_cancelled_before_it_looks_takes_nothing() -> None:
    async with open_desk(is_direct=True) as desk:
        await desk.fall_asleep()
        desk.due.add(1)
        desk.answer(1)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await desk.read_as_caller()
        await anyio.wait_all_tasks_blocked()
        assert scope.cancelled_caught
        assert desk.taken == [0, 1]  # by the worker's task


async def test_a_worker_that_nobody_calls_is_read_by_its_task_after_a_while() -> None:
    async with open_desk() as desk:
        await desk.fall_asleep()
        await anyio.sleep(0.9 * LINGER_S)
        desk.due.add(1)
        desk.answer(1)
        await desk.read_as_caller()
        await anyio.sleep(0.9 * LINGER_S)
        assert desk.channel.readers == []  # it has just been used
        await anyio.sleep(1.2 * LINGER_S)
        assert desk.channel.readers == ["worker"]
        assert not desk.reading.is_free
        assert len(desk.deadlines) == 0


async def test_a_call_that_no_caller_reads_for_wakes_the_task() -> None:
    async with open_desk() as desk:
        await desk.fall_asleep()
        desk.due.add(1)
        desk.reading.need()
        assert not desk.reading.is_free
        await anyio.wait_all_tasks_blocked()
        assert desk.channel.readers == ["worker"]
        desk.answer(1)
        await anyio.wait_all_tasks_blocked()
        assert desk.taken == [0, 1]
        assert desk.reading.is_free


async def test_a_caller_that_has_its_answer_leaves_the_others_to_the_task() -> None:
    async with open_desk() as desk:
        await desk.fall_asleep()
        desk.due |= {1, 2}
        desk.answer(1)
        await desk.read_as_caller()
        await anyio.wait_all_tasks_blocked()
        assert desk.channel.readers == ["worker"]
        desk.answer(2)
        await anyio.wait_all_tasks_blocked()
        assert desk.taken == [0, 1, 2]


async def test_what_is_needed_while_a_caller_reads_is_read_by_that_caller() -> None:
    """Nobody is woken for it: there is one reader at a time."""
    async with open_desk() as desk, anyio.create_task_group() as tasks:
        await desk.fall_asleep()
        desk.due |= {1, 2}
        tasks.start_soon(desk.read_as_caller, name="caller")
        await anyio.wait_all_tasks_blocked()
        desk.reading.need()
        assert not desk.reading.is_free
        await anyio.wait_all_tasks_blocked()
        assert desk.channel.readers == ["caller"]
        desk.answer(2)  # of the other one
        await anyio.wait_all_tasks_blocked()
        assert desk.channel.readers == ["worker"]  # the caller may have to wait on
        desk.answer(1)
        await anyio.wait_all_tasks_blocked()
        assert desk.taken == [0, 2, 1]


async def test_a_caller_that_is_cancelled_hands_the_reading_over() -> None:
    """The answer to its Cancel is still to come."""
    async with open_desk() as desk:
        await desk.fall_asleep()
        desk.due.add(1)
        with anyio.move_on_after(1):
            await desk.read_as_caller()
        await anyio.wait_all_tasks_blocked()
        assert desk.channel.readers == ["worker"]
        desk.answer(1)
        await anyio.wait_all_tasks_blocked()
        assert desk.taken == [0, 1]


async def test_the_end_of_the_link_is_met_by_the_task_although_a_caller_saw_it_first() -> None:
    async with open_desk() as desk:
        await desk.fall_asleep()
        desk.due.add(1)
        desk.channel.say.send_nowait(anyio.EndOfStream())
        await desk.read_as_caller()
        assert not desk.reading.is_free
        await anyio.wait_all_tasks_blocked()
        assert isinstance(desk.ended, anyio.EndOfStream)


@pytest.mark.parametrize("who", ["caller", "worker"])
async def test_after_a_breach_nothing_more_is_read(who: str) -> None:
    async with open_desk() as desk:
        if who == "caller":
            await desk.fall_asleep()
        desk.due.add(1)
        desk.guilty = True
        desk.answer(1)
        if who == "caller":
            await desk.read_as_caller()
        await anyio.wait_all_tasks_blocked()
        desk.answer(2)
        await anyio.wait_all_tasks_blocked()
        assert 2 not in desk.taken
        assert not desk.reading.is_free
        assert desk.channel.readers == []
