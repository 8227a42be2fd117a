"""A worker that knows nothing but docs/protocol.md serves a pool, and keeps every rule of it.

First through `open_pool`, then in a conversation of our own, message by message.
"""

from __future__ import annotations

import ast
import logging
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from _backends import one_loop_each
from msgspec import Raw

from snakepit import (
    CallTimeoutError,
    InvalidParamsError,
    Pool,
    SerializationError,
    Stop,
    ToolError,
    ToolNotFoundError,
    WorkerDiedError,
    open_pool,
)
from snakepit import protocol as p

pytestmark = one_loop_each

WORKER = Path(__file__).with_name("worker_from_the_spec.py")
ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-S", "-E", str(WORKER)]
PATIENCE_S = 20.0
FOREVER_S = 3600
PATIENT = Stop(cancel_grace=15, term_grace=10, drain_timeout=10)


@asynccontextmanager
async def foreign_pool(
    *, size: int = 1, stop: Stop = PATIENT, **options: Any
) -> AsyncGenerator[Pool]:
    """A pool of foreign workers, in a block that does not last longer than it may."""
    with anyio.fail_after(PATIENCE_S):
        async with open_pool(command=COMMAND, size=size, stop=stop, **options) as pool:
            yield pool


def test_the_foreign_worker_imports_the_standard_library_alone() -> None:
    imported = set()
    for node in ast.walk(ast.parse(WORKER.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    assert len(imported) > 3
    assert imported <= sys.stdlib_module_names


# -- through a pool ---------------------------------------------------------------------------


async def test_a_foreign_worker_tells_its_tools() -> None:
    async with foreign_pool() as pool:
        tools = pool.tools()
        assert list(tools) == [
            "echo", "add", "big", "pid", "count", "total", "first", "doubled", "work", "ask",
            "remember", "fail", "sleep", "spin", "crash",
        ]  # fmt: skip
        assert tools["add"].description == "a + b"
        assert tools["add"].parameters == {"type": "object"}
        assert [name for name, tool in tools.items() if tool.streaming] == ["count", "doubled"]


PLAIN = [
    None, True, False, 0, 1, -1, 127, 128, -32, -33, 255, 256, 2**16, 2**32, 2**64 - 1, -(2**63),
    0.0, -1.5, float("inf"), "", "é☃𝄞", "x" * 31, "x" * 32, "x" * 300, "x" * 70_000, b"", b"\x00\xff",
    b"b" * 300, [], [1, [2, [3]]], list(range(20)), list(range(70_000)), {}, {"a": {"b": [None]}},
    {f"key {i}": i for i in range(20)}, {str(i): i for i in range(70_000)},
]  # fmt: skip


async def test_plain_values_of_every_width_come_back_equal() -> None:
    """Each form that msgpack has for a type: fixed, with one, two and four bytes of size."""
    async with foreign_pool() as pool:
        for value in PLAIN:
            back = await pool.execute("echo", {"value": value})
            assert (type(back), back) == (type(value), value)
        assert await pool.execute("add", {"a": 2, "b": 40}) == 42


async def test_extensions_that_it_knows_are_read_and_others_refused() -> None:
    """tuple, sets and bytearray as its own kinds; what it does not know fails one call alone."""
    async with foreign_pool() as pool:
        sent = [(1, (2,)), {3}, frozenset({4}), bytearray(b"5"), bytearray(b"6" * 70_000)]
        wanted = [[1, [2]], [3], [4], b"5", b"6" * 70_000]
        assert await pool.execute("echo", {"value": sent}) == wanted
        for unknown in (2**64, 1j, [{"a": {1: 2}}], memoryview(b"m" * 70_000)):
            with pytest.raises(SerializationError, match="does not know ext"):
                await pool.execute("echo", {"value": unknown})
        assert pool.stats().restarts == 0


@pytest.mark.parametrize("size", [2**16 - 1, 2**16, 2**20, 2**20 + 1, 5 * 2**20 + 3])
async def test_large_values_go_both_ways_in_parts(size: int) -> None:
    """Around each edge: buffers come from 64 KiB on, a body over 1 MiB is in a transfer."""
    data = os.urandom(1024) * (size // 1024) + b"z" * (size % 1024)
    async with foreign_pool() as pool:
        assert await pool.execute("echo", {"value": data}) == data
        text = "t" * size
        assert await pool.execute("echo", {"value": [text, data, 1]}) == [text, data, 1]
        assert await pool.execute("big", {"size": size}) == "x" * size


async def test_a_stream_is_read_to_its_end_under_any_window() -> None:
    """A worker that sent more than it has credit for would be ended by the host."""
    async with foreign_pool() as pool:
        [worker] = pool.workers()
        for window in (1, 2, 3, 16, 1000):
            async with pool.stream("count", {"until": 100}, window=window) as numbers:
                assert [number async for number in numbers] == list(range(100))
        async with pool.stream("count", {"until": 0}) as numbers:
            assert [number async for number in numbers] == []
        assert pool.workers()[0].pid == worker.pid


async def test_a_stream_left_early_closes_the_generator_and_keeps_the_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "snakepit.worker")
    async with foreign_pool() as pool:
        pid = await pool.execute("pid")
        async with pool.stream("count", {"until": 10**9}, window=2) as numbers:
            async for number in numbers:
                if number == 5:
                    break
        assert await pool.execute("pid") == pid
    assert [record.getMessage() for record in caplog.records] == [
        "default-1.1: counted enough",
        "default-1.1: cleaned up",
    ]


async def test_the_progress_of_a_call_reaches_its_caller() -> None:
    """In order, the last one in any case; a caller that does not ask hears nothing."""
    shown: list[tuple[Any, ...]] = []
    async with foreign_pool() as pool:
        params = {"steps": 1000}
        value = await pool.execute("work", params, on_progress=lambda *told: shown.append(told))
        assert value == 1000
        assert shown == sorted(shown)
        assert shown[-1] == (1000, 1000, "step 1000")
        assert await pool.execute("work", params) == 1000
        assert pool.stats().restarts == 0


async def test_a_cancelled_call_stops_and_its_worker_is_kept() -> None:
    async with foreign_pool() as pool:
        pid = await pool.execute("pid")
        with anyio.move_on_after(0.1) as scope:
            await pool.execute("sleep", {"seconds": FOREVER_S})
        assert scope.cancelled_caught
        with pytest.raises(CallTimeoutError):
            await pool.execute("sleep", {"seconds": FOREVER_S}, timeout=0.4)
        assert await pool.execute("pid") == pid
        assert (pool.stats().restarts, pool.stats().errors) == (0, 2)


async def test_a_tool_that_is_deaf_to_cancel_costs_the_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It ends by SIGTERM: a request for a dump of its stacks would make it dump core."""
    stop = Stop(cancel_grace=0.05, term_grace=0.5, drain_timeout=5)
    async with foreign_pool(stop=stop) as pool:
        pid = await pool.execute("pid")
        with pytest.raises(CallTimeoutError):
            await pool.execute("spin", {"seconds": FOREVER_S}, timeout=0.4)
        assert await pool.execute("pid") != pid
    [death] = [record.getMessage() for record in caplog.records if "ended" in record.getMessage()]
    assert death.startswith(f"default-1.1 (pid {pid}) was ended because 'spin' did not stop")
    assert "ended by SIGTERM" in death


async def test_what_a_tool_raises_arrives_as_that_type() -> None:
    async with foreign_pool() as pool:
        with pytest.raises(ValueError, match="no such luck") as caught:
            await pool.execute("fail", {"message": "no such luck"})
        error = caught.value
        assert isinstance(error, ToolError)
        assert (error.tool, error.type) == ("fail", "builtins.ValueError")
        assert error.args == ("no such luck",)
        assert pool.stats().restarts == 0


async def test_wrong_calls_are_refused_by_host_and_worker_alike() -> None:
    """The host refuses what it knows to be wrong; before any worker was ready, the worker does."""
    for min_ready in (1, 0):
        async with foreign_pool(min_ready=min_ready) as pool:
            assert bool(pool.tools()) == bool(min_ready)
            with pytest.raises(ToolNotFoundError):
                await pool.execute("ecco", {"value": 1})
        async with foreign_pool(min_ready=min_ready) as pool:
            with pytest.raises(InvalidParamsError, match="stream"):
                await pool.execute("count", {"until": 1})
        async with foreign_pool(min_ready=min_ready) as pool:
            with pytest.raises(InvalidParamsError, match="stream"):
                async with pool.stream("add", {"a": 1, "b": 2}) as numbers:
                    await anext(numbers)
            with pytest.raises(InvalidParamsError, match="'b'"):
                await pool.execute("add", {"a": 1})
            with pytest.raises(PermissionError):
                await pool.run_sync(os.getpid)


async def test_a_crash_fails_one_call_and_the_worker_is_replaced() -> None:
    async with foreign_pool() as pool:
        pid = await pool.execute("pid")
        with pytest.raises(WorkerDiedError) as caught:
            await pool.execute("crash", {"code": 9})
        assert (caught.value.pid, caught.value.exit_code, caught.value.started) == (pid, 9, True)
        assert await pool.execute("pid") != pid
        assert pool.stats().restarts == 1


async def test_many_calls_at_once_each_get_their_own_answer() -> None:
    """More callers than workers, short calls and cancelled ones among them."""
    answers: dict[int, int] = {}
    async with foreign_pool(size=2) as pool:
        await pool.ready()

        async def call(number: int) -> None:
            answers[number] = await pool.execute("add", {"a": number, "b": number})

        async def cancel() -> None:
            with anyio.move_on_after(0.01):
                await pool.execute("sleep", {"seconds": FOREVER_S})

        async with anyio.create_task_group() as tasks:
            for number in range(300):
                tasks.start_soon(call, number)
                if number % 60 == 0:
                    tasks.start_soon(cancel)
        assert answers == {number: 2 * number for number in range(300)}
        assert pool.stats().restarts == 0


async def test_the_pool_shuts_a_foreign_worker_down_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each worker cleans up and exits by itself; nothing is warned of."""
    caplog.set_level(logging.INFO, "snakepit")
    async with foreign_pool(size=2, min_ready=2):
        pass
    assert sorted(record.getMessage() for record in caplog.records) == [
        "default-1.1: cleaned up",
        "default-2.1: cleaned up",
    ]


async def test_our_own_worker_serves_behind_any_command() -> None:
    """As it would behind ssh: the adapter is the command's argument, its arguments the host's."""
    line = f"exec {sys.executable} -m snakepit.worker examples.adapters.words:Words"
    with anyio.fail_after(PATIENCE_S):
        async with open_pool(
            command=["sh", "-c", line],
            adapter_args=("snake",),
            env={"PYTHONPATH": str(ROOT)},
            size=1,
        ) as pool:
            assert await pool.execute("count", {"text": "the tail of a snake"}) == 1


async def test_it_calls_host_tools() -> None:
    async with foreign_pool() as pool:

        @pool.host_tool
        def double(value: str) -> str:
            return value * 2

        @pool.host_tool
        async def sleep() -> None:
            await anyio.sleep(FOREVER_S)

        for value in ("a", "b" * 3_000_000):
            params = {"name": "double", "params": {"value": value}}
            assert await pool.execute("ask", params) == value * 2
        with pytest.raises(ValueError, match="not_found"):
            await pool.execute("ask", {"name": "eval", "params": {}})
        with pytest.raises(CallTimeoutError):
            await pool.execute("ask", {"name": "sleep", "params": {}}, timeout=0.5)
        assert await pool.execute("echo", {"value": 5}) == 5
        assert pool.stats().restarts == 0


# -- message by message -----------------------------------------------------------------------


class Host:
    """The host's side of one conversation, blocking."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self.to, self.out = process, process.stdin, process.stdout
        self.packer, self.unpacker = p.Packer(), p.Unpacker(p.decode_to_host)
        self.heard: list[p.ToHost] = []

    def say(self, *messages: Any) -> None:
        for message in messages:
            frame = self.packer.pack(message)
            if frame is not None:
                self.write(frame)
                continue
            for head, data in self.packer.pack_parts(message):
                self.write(head)
                self.write(b"" if data is None else data)

    def write(self, data: bytes | memoryview) -> None:
        self.to.write(data)
        self.to.flush()

    def hear(self) -> Any:
        """The next message, as its class name and fields, values decoded; None at the end."""
        while not self.heard:
            chunk = os.read(self.out.fileno(), 2**16)
            if not chunk:
                return None
            self.heard += self.unpacker.feed(chunk)
        message = self.heard.pop(0)
        fields = [getattr(message, name) for name in message.__struct_fields__]
        if isinstance(message, p.Result):  # these workers do not tell how long it took
            fields = [message.id, p.decode_value(message.body, message.buffers)]
        elif isinstance(message, p.Item | p.HostCall):
            fields = [*fields[:-2], p.decode_value(message.body, message.buffers)]
        elif isinstance(message, p.Failure):
            fields = [message.id, message.kind]
        return type(message).__name__, *fields


@contextmanager
def conversation() -> Generator[Host]:
    """A worker that is ready; whatever it does, it is gone afterwards."""
    pipe = subprocess.PIPE
    with subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            host = Host(process)
            assert host.hear() == ("Hello", 1, process.pid, "from the spec")
            host.say(p.Start("w-1", body=p.encode_value((b"a" * 70_000,))[0]))
            assert host.hear()[0] == "Ready"
            yield host
        finally:
            process.kill()


def call(number: int, tool: str, *, window: int = 0, **params: Any) -> p.Call:
    body, buffers = p.encode_params(params)
    return p.Call(number, tool, body, buffers, None, window)


def occupy(host: Host) -> None:
    """Have call 1 run until it is cancelled: a stream that waits for credit."""
    host.say(call(1, "count", window=1, until=10))
    assert host.hear() == ("Item", 1, 0)


def test_recall_gives_back_what_has_not_begun_and_nothing_else() -> None:
    with conversation() as host:
        occupy(host)
        host.say(*[call(number, "echo", value=number) for number in (2, 3, 4)])
        host.say(p.Recall((1, 2, 4, 77)))
        assert host.hear() == ("Returned", (2, 4))
        host.say(p.Recall((2, 4)), p.Cancel(1))
        assert host.hear() == ("Returned", ())
        assert host.hear() == ("Settled", 1, True)
        assert host.hear() == ("Result", 3, 3)


def test_cancel_of_calls_that_run_wait_or_are_over_is_answered_once() -> None:
    with conversation() as host:
        occupy(host)
        host.say(call(2, "echo", value=2), p.Cancel(2), p.Cancel(2), p.Cancel(99))
        assert host.hear() == ("Settled", 2, False)
        host.say(p.Cancel(1), p.Cancel(1))
        assert host.hear() == ("Settled", 1, True)
        host.say(p.Cancel(1), call(3, "echo", value=3))
        assert host.hear() == ("Result", 3, 3)


def test_a_session_keeps_its_state_until_its_end_which_comes_in_the_order_of_calls() -> None:
    """A call that waits when the end comes still belongs to the old session."""

    def remember(number: int, session: str | None = "a") -> p.Call:
        body, buffers = p.encode_params({"it": number})
        return p.Call(number, "remember", body, buffers, session=session)

    with conversation() as host:
        host.say(remember(1), remember(2, "b"), remember(3), remember(4, None))
        assert [host.hear()[2] for _ in range(4)] == [[1], [2], [1, 3], [4]]
        host.say(call(5, "count", window=1, until=10))
        assert host.hear() == ("Item", 5, 0)
        host.say(remember(6), p.EndSession("a"), remember(7), p.EndSession("never seen"))
        host.say(p.Cancel(5))
        assert host.hear() == ("Settled", 5, True)
        assert [host.hear()[2] for _ in range(2)] == [[1, 3, 6], [7]]
        host.say(remember(8, "b"))
        assert host.hear() == ("Result", 8, [2, 8])


def test_a_host_call_waits_for_its_answer_and_ends_with_its_call() -> None:
    with conversation() as host:
        host.say(call(1, "ask", name="double", params={"value": 4}))
        assert host.hear() == ("HostCall", 1, 1, "double", {"value": 4})
        host.say(
            call(2, "echo", value="behind"), p.HostReply(99), p.HostReply(1, p.encode_value(8)[0])
        )
        assert host.hear() == ("Result", 1, 8)
        assert host.hear() == ("Result", 2, "behind")
        host.say(call(3, "ask", name="double", params={}))
        assert host.hear() == ("HostCall", 2, 3, "double", {})
        host.say(p.HostFailure(2, "params", p.describe(TypeError("no value"))))
        assert host.hear() == ("Failure", 3, "tool")
        host.say(call(4, "ask", name="double", params={"value": b"x" * 2 * p.PART_BYTES_MAX}))
        assert host.hear() == ("HostCall", 3, 4, "double", {"value": b"x" * 2 * p.PART_BYTES_MAX})
        host.say(p.Cancel(4))
        assert host.hear() == ("Settled", 4, True)
        host.say(p.HostReply(3, *p.encode_value(b"y" * 2 * p.PART_BYTES_MAX)))
        host.say(call(5, "echo", value="after"))
        assert host.hear() == ("Result", 5, "after")


def test_items_wait_for_credit_and_the_end_does_not() -> None:
    with conversation() as host:
        host.say(call(1, "count", window=2, until=3), call(2, "echo", value="behind"))
        assert [host.hear(), host.hear()] == [("Item", 1, 0), ("Item", 1, 1)]
        host.say(p.Recall(()))
        assert host.hear() == ("Returned", ()), "it goes on reading while it has no credit"
        host.say(p.Credit(1, 1), p.Credit(99, 1))
        assert host.hear() == ("Item", 1, 2)
        assert host.hear() == ("End", 1)
        assert host.hear() == ("Result", 2, "behind")


def test_a_forgotten_transfer_is_dropped_and_others_may_alternate() -> None:
    """Parts of two transfers and a whole call between them; one of the two is given up."""
    with conversation() as host:
        for transfer, data in ((1, b"a"), (2, b"b"), (1, b"c"), (2, b"d")):
            host.say(p.Part(transfer, memoryview(data)))
        host.say(call(5, "echo", value="between"), p.Part(1, None), p.Part(9, None))
        host.write(p.frame(p.encode_message(p.Call(6, "echo", BUFFER_0, (2,)))))
        assert host.hear() == ("Result", 5, "between")
        assert host.hear() == ("Result", 6, b"bd")


def test_shutdown_is_answered_by_goodbye_and_exit() -> None:
    with conversation() as host:
        host.say(call(1, "echo", value=1))
        assert host.hear() == ("Result", 1, 1)
        host.say(p.Shutdown(10))
        assert host.hear() == ("Goodbye",)
        assert host.hear() is None
        assert host.process.wait(PATIENCE_S) == 0


def test_the_end_of_stdin_ends_the_worker_even_in_a_call() -> None:
    with conversation() as host:
        occupy(host)
        host.to.close()
        assert host.hear() is None
        assert host.process.wait(PATIENCE_S) == 0


BUFFER_0 = Raw(b"\x81\xa5value\xd4\x20\x00")  # {"value": ext 32, buffer 0}
BREACHES = {
    "unknown message": p.frame(b"\x91\x63"),
    "frame too long": (p.FRAME_BYTES_MAX + 1).to_bytes(4, "big"),
    "empty frame": p.frame(b""),
    "two values in a frame": p.frame(b"\x92\x03\x01\x00"),
    "transfer that never came": p.frame(b"\x95\x02\x01\xa4echo\x80\x91\x07"),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_by_the_host_ends_the_worker_with_a_word_on_stderr(breach: str) -> None:
    with conversation() as host:
        host.write(BREACHES[breach])
        assert host.hear() is None
        assert host.process.wait(PATIENCE_S) == 1
        assert host.process.stderr is not None
        assert b"the host broke the protocol" in host.process.stderr.read()


def test_left_out_and_appended_fields_are_taken() -> None:
    """[2, 1, "pid"] is a whole call, and a ninth field is none of a worker's business."""
    with conversation() as host:
        host.write(p.frame(b"\x93\x02\x01\xa3pid"))
        assert host.hear() == ("Failure", 1, "params"), "a body of nil is no map"
        host.write(p.frame(b"\x94\x02\x02\xa3pid\x80"))
        assert host.hear() == ("Result", 2, host.process.pid)
        host.write(p.frame(b"\x9a\x02\x03\xa3pid\x80\x90\xc0\x00\xc0\xa3new\xc0"))
        assert host.hear() == ("Result", 3, host.process.pid)
