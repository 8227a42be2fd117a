"""The JavaScript worker of the examples serves a pool, and keeps the rules of docs/protocol.md."""

from __future__ import annotations

import datetime as dt
import functools
import logging
import os
import shutil
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from _backends import one_loop_each
from test_foreign_worker import BREACHES, BUFFER_0, Host, call

from snakepit import (
    CallTimeoutError,
    InvalidParamsError,
    Pool,
    SerializationError,
    Stop,
    ToolError,
    ToolNotFoundError,
    WorkerDiedError,
    WorkerStartError,
    open_pool,
)
from snakepit import protocol as p

NODE = Path(__file__).parents[2] / "examples" / "workers" / "node"
COMMAND = ["node", str(NODE / "worker.js")]
PATIENCE_S = 20.0
FOREVER_S = 3600
PATIENT = Stop(cancel_grace=15, term_grace=10, drain_timeout=10)
UTC = dt.UTC


@functools.cache
def node_is_there() -> bool:
    if shutil.which("node") is None or not (NODE / "node_modules" / "@msgpack").is_dir():
        return False
    is_new = "process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)"
    return subprocess.run(["node", "-e", is_new], check=False).returncode == 0


pytestmark = [
    one_loop_each,
    pytest.mark.skipif(
        not node_is_there(), reason="needs Node.js 18 or newer, and what .ci/node installs"
    ),
]


@asynccontextmanager
async def node_pool(
    *, size: int = 1, stop: Stop = PATIENT, command: list[str] | None = None, **options: Any
) -> AsyncGenerator[Pool]:
    """A pool of JavaScript workers, in a block that does not last longer than it may."""
    with anyio.fail_after(PATIENCE_S):
        async with open_pool(command=command or COMMAND, size=size, stop=stop, **options) as pool:
            yield pool


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


# -- through a pool ---------------------------------------------------------------------------


async def test_a_javascript_worker_tells_its_tools() -> None:
    async with node_pool() as pool:
        tools = pool.tools()
        assert tools["add"].description == "a + b"
        assert tools["add"].parameters == {
            "type": "object",
            "properties": {"a": {"type": "number"}, "b": {"type": "number", "default": 1}},
            "required": ["a"],
            "additionalProperties": False,
        }
        assert [name for name, tool in tools.items() if tool.streaming] == [
            "doubled", "count", "watch",
        ]  # fmt: skip
        assert await pool.execute("add", {"a": 2, "b": 40}) == 42
        assert await pool.execute("add", {"a": 2}) == 3


SAME = [
    None, True, False, "", "é☃𝄞", "x" * 70_000, b"", b"\x00\xff", b"b" * 70_000, [], [1, [2, [None]]],
    list(range(70_000)), {}, {"a": {"b": [None]}}, {str(i): i for i in range(70_000)},
    0.5, -1e300, 5e-324, float("inf"), 2.0**1023 * 1.5,
    {1, 2}, set(), {1: 2, "a": {3: b"4"}}, {True: None}, {"constructor": 1, "toString": 2},
    dt.datetime(2024, 2, 29, 12, 30, 59, 123_000, tzinfo=UTC), dt.datetime(1, 1, 1, tzinfo=UTC),
    dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), dt.datetime(1969, 12, 31, 23, 59, 59, 1000, tzinfo=UTC),
    [[b"many" * 20_000]] * 20,
]  # fmt: skip
EDGES = [7, 8, 15, 16, 31, 32, 53, 63, 64, 71, 72, 127, 128, 1000]
INTS = [sign * (2**bits) + more for bits in EDGES for sign in (1, -1) for more in (-1, 0, 1)]


async def test_values_come_back_as_the_same_type_and_equal() -> None:
    async with node_pool() as pool:
        for value in [*SAME, *INTS]:
            back = await pool.execute("echo", {"value": value})
            assert (type(back), back) == (type(value), value)
        assert await pool.execute("echo", {"value": INTS}) == INTS


OTHERS = [
    ((1, (2,)), [1, [2]]),
    (frozenset({4}), {4}),
    (bytearray(b"5"), b"5"),
    (bytearray(b"6" * 70_000), b"6" * 70_000),
    (dt.datetime(2024, 1, 1, 2, 0, 0, 999, dt.timezone(dt.timedelta(hours=2))),
     dt.datetime(2024, 1, 1, tzinfo=UTC)),
]  # fmt: skip


async def test_what_javascript_has_no_type_for_comes_back_as_its_neighbour() -> None:
    async with node_pool() as pool:
        for value, wanted in OTHERS:
            back = await pool.execute("echo", {"value": value})
            assert (type(back), back) == (type(wanted), wanted)
        for number in (1.0, -3.0, 2.0**53 - 1):
            assert type(await pool.execute("echo", {"value": number})) is int


KINDS: list[tuple[Any, str]] = [
    (None, "null"), (2**53 - 1, "Number"), (2**53, "BigInt"), (-(2**53), "BigInt"), (2**64, "BigInt"),
    (0.1, "Number"), (b"x", "Buffer"), (b"x" * 70_000, "Buffer"), (bytearray(b"x"), "Buffer"), ((), "Array"),
    (frozenset(), "Set"), ({}, "Object"), ({1: 2}, "Map"), (dt.datetime.now(UTC), "Date"),
]  # fmt: skip


async def test_tools_see_the_types_of_their_language() -> None:
    async with node_pool() as pool:
        for value, kind in KINDS:
            assert await pool.execute("kind", {"value": value}) == kind


REFUSED = [
    1j, memoryview(b"m"), dt.date(2024, 1, 1), dt.datetime(2024, 1, 1), "\ud800", [{"a": (1j,)}],
    {"__proto__": 1}, [{"a": {"__proto__": {}}}],
]  # fmt: skip


async def test_values_that_it_cannot_read_fail_one_call_alone() -> None:
    async with node_pool() as pool:
        pid = await pool.execute("pid")
        for value in REFUSED:
            with pytest.raises(SerializationError):
                await pool.execute("echo", {"value": value})
        assert await pool.execute("pid") == pid


@pytest.mark.parametrize("size", [2**16 - 1, 2**16, 2**20, 2**20 + 1, 5 * 2**20 + 3])
async def test_large_values_go_both_ways_in_parts(size: int) -> None:
    data = os.urandom(1024) * (size // 1024) + b"z" * (size % 1024)
    async with node_pool() as pool:
        assert await pool.execute("echo", {"value": data}) == data
        text = "t" * size
        assert await pool.execute("echo", {"value": [text, data, 1]}) == [text, data, 1]


async def test_a_stream_is_read_to_its_end_under_any_window() -> None:
    """A worker that sent more than it has credit for would be ended by the host."""
    async with node_pool() as pool:
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
    """Left while it awaits something, and while it waits for credit."""
    caplog.set_level(logging.INFO, "snakepit.worker")
    async with node_pool() as pool:
        pid = await pool.execute("pid")
        async with pool.stream("watch") as items:
            assert await anext(items) == "watching"
        async with pool.stream("count", {"until": 10**9}, window=2) as numbers:
            async for number in numbers:
                if number == 5:
                    break
        assert await pool.execute("pid") == pid
    assert messages(caplog) == ["default-1.1: stopped watching", "default-1.1: cleaned up"]


async def test_a_cancelled_call_stops_and_its_worker_is_kept() -> None:
    async with node_pool() as pool:
        pid = await pool.execute("pid")
        with anyio.move_on_after(0.1) as scope:
            await pool.execute("sleep", {"seconds": FOREVER_S})
        assert scope.cancelled_caught
        with pytest.raises(CallTimeoutError):
            await pool.execute("sleep", {"seconds": FOREVER_S}, timeout=0.4)
        with pytest.raises(CallTimeoutError):
            async with pool.stream("watch", timeout=0.4) as items:
                async for _ in items:
                    pass
        assert await pool.execute("pid") == pid
        assert pool.stats().restarts == 0


async def test_progress_is_told_in_order_to_the_last_step() -> None:
    """Without a pause of a busy tool the latest in each interval; with one each of them."""
    shown: list[tuple[Any, ...]] = []

    def show(*told: Any) -> None:
        shown.append(told)

    async with node_pool() as pool:
        assert await pool.execute("work", {"steps": 100_000}, on_progress=show) == 100_000
        assert shown == sorted(shown)
        assert shown[-1] == (100_000, 100_000, "step 100000")
        assert len(shown) < 10_000
        shown.clear()
        assert await pool.execute("work", {"steps": 3, "ms": 30}, on_progress=show) == 3
        assert shown == [(number, 3, f"step {number}") for number in (1, 2, 3)]
        assert await pool.execute("work", {"steps": 3, "ms": 30}) == 3
        assert pool.stats().restarts == 0


async def test_an_error_in_on_progress_stops_the_tool_and_keeps_the_worker() -> None:
    async with node_pool() as pool:
        pid = await pool.execute("pid")
        error = ZeroDivisionError("mine")

        async def fail(*_: Any) -> None:
            raise error

        with pytest.raises(ZeroDivisionError) as caught:
            await pool.execute("work", {"steps": 2, "ms": FOREVER_S * 1000}, on_progress=fail)
        assert caught.value is error
        assert await pool.execute("pid") == pid


async def test_an_update_that_came_too_soon_is_told_although_the_tool_tells_no_more(
    own_worker: list[str],
) -> None:
    async with node_pool(command=own_worker) as pool:

        def stop_at_the_second(done: float, *_: Any) -> None:
            if done == 2:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await pool.execute("tellAndStay", on_progress=stop_at_the_second)
        assert pool.stats().restarts == 0


TOLD: list[tuple[str, tuple[Any, ...]]] = [
    ("[1, 2]", (1, 2, None)), ("[0.5, undefined, '']", (0.5, None, "")), ("[1n, 10n]", (1, 10, None)),
    ("[0, 2 ** 40, 'é'.repeat(3000)]", (0, 2**40, "é" * 1000)), ("[1, 1, '\\ud800']", (1, 1, "\ufffd")),
]  # fmt: skip
NOT_TOLD = [
    ("['1']", TypeError), ("[]", TypeError), ("[1, 2, 3]", TypeError), ("[NaN]", ValueError),
    ("[-1]", ValueError), ("[1, Infinity]", ValueError),
]  # fmt: skip


async def test_what_is_no_progress_is_an_error_in_the_tool(own_worker: list[str]) -> None:
    """Nor is anything told for a call that is over."""
    shown: list[tuple[Any, ...]] = []
    async with node_pool(command=own_worker) as pool:
        for code, told in TOLD:
            await pool.execute("tell", {"code": code}, on_progress=lambda *it: shown.append(it))
            assert shown.pop() == told
        for code, error in NOT_TOLD:
            with pytest.raises(error, match=r"progress|message"):
                await pool.execute("tell", {"code": code})
        assert await pool.execute("evaluate", {"code": "progress(1)"}) is None
        assert pool.stats().restarts == 0
    assert shown == []


async def test_a_tool_that_computes_through_its_cancel_costs_the_worker() -> None:
    stop = Stop(cancel_grace=0.05, term_grace=0.1, drain_timeout=5)
    async with node_pool(stop=stop) as pool:
        pid = await pool.execute("pid")
        with pytest.raises(CallTimeoutError):
            await pool.execute("spin", {"seconds": FOREVER_S}, timeout=0.4)
        assert await pool.execute("pid") != pid


async def test_an_error_arrives_with_name_message_stack_and_cause() -> None:
    """A subclass of RangeError is a ValueError to Python, and keeps its own name."""
    async with node_pool() as pool:
        with pytest.raises(ValueError, match="no such luck") as caught:
            await pool.execute("fail", {"message": "no such luck"})
        error = caught.value
        assert isinstance(error, ToolError)
        assert (error.tool, error.type, error.message) == ("fail", "OutOfLuckError", "no such luck")
        assert error.args == ("no such luck",)
        assert error.traceback.startswith("OutOfLuckError: no such luck\n    at ")
        assert "tools.js" in error.traceback
        cause = error.__cause__
        assert isinstance(cause, ToolError)
        assert isinstance(cause, TypeError)
        assert (cause.type, cause.args) == ("TypeError", ("the cause",))
        assert pool.stats().restarts == 0


THROWN = [
    ("new Error('m')", "Error", "m", None),
    ("new TypeError('m')", "TypeError", "m", TypeError),
    ("new RangeError('m')", "RangeError", "m", ValueError),
    ("new ReferenceError('m')", "ReferenceError", "m", NameError),
    ("new SyntaxError('m')", "SyntaxError", "m", None),
    ("new DOMException('m', 'AbortError')", "AbortError", "m", None),
    ("new (class NoSuch extends Error {})('m')", "NoSuch", "m", None),
    ("Object.assign(new Error('m'), { code: 'ENOENT' })", "Error", "m", FileNotFoundError),
    ("'text'", "string", "text", None),
    ("undefined", "undefined", "undefined", None),
    ("Object.create(null)", "object", "[Object: null prototype] {}", None),
    ("new Error('é'.repeat(100_000))", "Error", "é" * 20_000, None),
    ("new Error('half \\ud800')", "Error", "half \ufffd", None),
    ("new (class extends Error { get message() { throw this } })()", "Error",
     "the error cannot be described", None),
]  # fmt: skip
UNSENDABLE = [
    "() => 1", "Symbol('s')", "new (class Thing {})()", "new Float64Array(2)", "new Date(NaN)",
    "'\\ud800'", "{ '\\ud800': 1 }", "new Map([[1, Symbol('s')]])", "new Set([() => 1])",
    "(() => { const a = []; a.push(a); return a; })()",
]  # fmt: skip
SENDABLE = [
    ("undefined", None), ("[undefined, , 1]", [None, None, 1]), ("({ a: undefined })", {"a": None}),
    ("new Map([['a', 1n]])", {"a": 1}), ("new Uint8Array([1, 2])", b"\x01\x02"),
    ("Object.create(null)", {}), ("-(2n ** 100n)", -(2**100)), ("new Set([1n, 'a'])", {1, "a"}),
    ("new Date(1500)", dt.datetime(1970, 1, 1, 0, 0, 1, 500_000, UTC)),
]  # fmt: skip


@pytest.fixture
def own_worker(tmp_path: Path) -> list[str]:
    """A worker as a user would write one: tools that evaluate JavaScript, and a careful stream."""
    script = tmp_path / "own.mjs"
    script.write_text(
        f"""
        import {{ serve }} from {str(NODE / "snakepit-worker.js")!r};
        import fs from "node:fs";
        import {{ setTimeout as delay }} from "node:timers/promises";
        console.log("to the log, not to the wire");
        const evaluate = ({{ code }}) => (0, eval)(`(${{code}})`);
        serve({{
            evaluate: {{ run: evaluate }},
            evaluateAll: {{
                async *run({{ codes }}) {{ for (const code of codes) yield evaluate({{ code }}); }},
            }},
            toss: {{ run: ({{ code }}) => {{ throw evaluate({{ code }}); }} }},
            tell: {{
                run: ({{ code }}, {{ progress }}) => {{
                    globalThis.progress = progress;
                    progress(...evaluate({{ code }}));
                }},
            }},
            tellAndStay: {{
                run: (_, {{ progress, signal }}) => {{
                    progress(1);
                    progress(2);
                    return delay(3_600_000, null, {{ signal }});
                }},
            }},
            hold: {{
                async *run({{ path, endless }}, {{ signal }}) {{
                    try {{
                        do yield 1; while (endless);
                        await delay(3_600_000, null, {{ signal }});
                    }} finally {{
                        await delay(20);
                        fs.writeFileSync(path, "done");
                    }}
                }},
            }},
        }});
        """,
        encoding="utf-8",
    )
    return ["node", str(script)]


async def test_whatever_is_thrown_is_told_and_mapped_to_the_builtin_of_that_meaning(
    own_worker: list[str],
) -> None:
    builtins = (TypeError, ValueError, NameError, OSError, SyntaxError, TimeoutError)
    async with node_pool(command=own_worker) as pool:
        for code, name, message, builtin in THROWN:
            with pytest.raises(ToolError) as caught:
                await pool.execute("toss", {"code": code})
            error = caught.value
            assert (code, error.type, error.message) == (code, name, message)
            assert isinstance(error, builtin or ToolError)
            assert isinstance(error, builtins) == (builtin is not None)
        assert pool.stats().restarts == 0


async def test_results_that_cannot_travel_fail_one_call_or_stream_alone(
    own_worker: list[str],
) -> None:
    async with node_pool(command=own_worker) as pool:
        for code in UNSENDABLE:
            with pytest.raises(SerializationError):
                await pool.execute("evaluate", {"code": code})
        async with pool.stream("evaluateAll", {"codes": ["1", UNSENDABLE[0], "2"]}) as items:
            assert await anext(items) == 1
            with pytest.raises(SerializationError):
                await anext(items)
        for code, value in SENDABLE:
            back = await pool.execute("evaluate", {"code": code})
            assert (type(back), back) == (type(value), value)
        assert pool.stats().restarts == 0


@pytest.mark.parametrize("endless", [True, False])
async def test_when_a_stream_s_block_is_left_its_finally_has_run(
    own_worker: list[str], tmp_path: Path, endless: bool
) -> None:
    """To its end: it awaits something before it writes the file."""
    path = tmp_path / "file"
    async with node_pool(command=own_worker) as pool:
        async with pool.stream("hold", {"path": str(path), "endless": endless}) as items:
            assert await anext(items) == 1
            assert not path.exists()
        assert path.read_text(encoding="utf-8") == "done"


async def test_wrong_calls_are_refused_by_host_and_worker_alike() -> None:
    """The host refuses what it knows to be wrong; before any worker was ready, the worker does."""
    for min_ready in (1, 0):
        async with node_pool(min_ready=min_ready) as pool:
            assert bool(pool.tools()) == bool(min_ready)
            with pytest.raises(ToolNotFoundError):
                await pool.execute("ecco", {"value": 1})
        async with node_pool(min_ready=min_ready) as pool:
            with pytest.raises(InvalidParamsError, match="stream"):
                await pool.execute("count", {"until": 1})
        async with node_pool(min_ready=min_ready) as pool:
            with pytest.raises(InvalidParamsError, match="stream"):
                async with pool.stream("add", {"a": 1, "b": 2}) as numbers:
                    await anext(numbers)
            for params, wrong in (
                ({}, "'a' is missing"),
                ({"a": "1"}, "'a' must be of type number"),
                ({"a": 1, "c": 2}, "unknown argument 'c'"),
            ):
                with pytest.raises(InvalidParamsError, match=wrong):
                    await pool.execute("add", params)


@pytest.mark.parametrize(
    ("params", "exit_code", "signal"),
    [({"code": 9}, 9, None), ({"signal": "SIGKILL"}, None, 9), ({"signal": "SIGABRT"}, None, 6)],
)
async def test_a_crash_fails_one_call_and_the_worker_is_replaced(
    params: dict[str, Any], exit_code: int | None, signal: int | None
) -> None:
    async with node_pool() as pool:
        pid = await pool.execute("pid")
        with pytest.raises(WorkerDiedError) as caught:
            await pool.execute("crash", params)
        died = caught.value
        assert (died.pid, died.exit_code, died.signal, died.started) == (
            pid,
            exit_code,
            signal,
            True,
        )
        assert await pool.execute("pid") != pid
        assert pool.stats().restarts == 1


async def test_many_calls_at_once_each_get_their_own_answer() -> None:
    """Short calls, which are sent ahead, with cancelled ones among them that recall them."""
    answers: dict[int, int] = {}
    async with node_pool(size=2) as pool:
        await pool.ready()

        async def add(number: int) -> None:
            answers[number] = await pool.execute("add", {"a": number, "b": number})

        async def cancel() -> None:
            with anyio.move_on_after(0.01):
                await pool.execute("sleep", {"seconds": FOREVER_S})

        async with anyio.create_task_group() as tasks:
            for number in range(300):
                tasks.start_soon(add, number)
                if number % 60 == 0:
                    tasks.start_soon(cancel)
        assert answers == {number: 2 * number for number in range(300)}
        assert pool.stats().restarts == 0


async def test_the_arguments_of_the_adapter_reach_initialize_and_its_error_the_host() -> None:
    async with node_pool(adapter_args=("Good morning",)) as pool:
        assert await pool.execute("greet", {"name": "snake"}) == "Good morning, snake!"
    with pytest.raises(WorkerStartError, match="a greeting is a string") as caught:
        async with node_pool(adapter_args=(1,)):
            pytest.fail("it started")
    assert "tools.js" in caught.value.traceback


async def test_prints_of_tools_and_their_children_reach_the_log_and_never_the_wire(
    own_worker: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Nor can a child read the wire: its stdin is empty."""
    caplog.set_level(logging.INFO, "snakepit.worker")
    async with node_pool() as pool:
        assert await pool.execute("shell", {"command": "cat; echo out; echo err >&2"}) == 0
        held = 'for fd in /proc/self/fd/*; do test "$(basename $fd)" -gt 2 && readlink $fd; done'
        assert await pool.execute("shell", {"command": f"({held}) | grep pipe:"}) == 1
        assert await pool.execute("add", {"a": 1}) == 2
    assert messages(caplog) == [
        "default-1.1: out",
        "default-1.1: err",
        "default-1.1: cleaned up",
    ]
    caplog.clear()
    async with node_pool(command=own_worker) as pool:
        for code in ("console.log('a')", "process.stdout.write('b\\n') && 1"):
            await pool.execute("evaluate", {"code": code})
    assert messages(caplog) == [
        f"default-1.1: {line}" for line in ("to the log, not to the wire", "a", "b")
    ]


async def test_a_shell_may_move_the_wire_instead() -> None:
    line = f"exec {' '.join(COMMAND)} 3<&0 4>&1 </dev/null >&2"
    async with node_pool(command=["sh", "-c", line]) as pool:
        assert await pool.execute("echo", {"value": "x" * 2_000_000}) == "x" * 2_000_000
        assert await pool.execute("shell", {"command": "echo to stderr"}) == 0


async def test_the_pool_shuts_a_javascript_worker_down_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each worker cleans up and exits by itself; nothing is warned of."""
    caplog.set_level(logging.INFO, "snakepit")
    async with node_pool(size=2, min_ready=2):
        pass
    assert sorted(messages(caplog)) == ["default-1.1: cleaned up", "default-2.1: cleaned up"]


# -- message by message -----------------------------------------------------------------------


@contextmanager
def conversation() -> Generator[Host]:
    """A worker that is ready; whatever it does, it is gone afterwards."""
    pipe = subprocess.PIPE
    with subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            host = Host(process)
            assert host.hear()[:3] == ("Hello", 1, process.pid)
            host.say(p.Start("w-1", body=p.encode_value(())[0]))
            assert host.hear()[0] == "Ready"
            yield host
        finally:
            process.kill()


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


def test_recall_and_cancel_are_heard_between_two_calls_that_await_nothing() -> None:
    """In one piece with the calls, or while a call computes."""
    with conversation() as host:
        said = [call(1, "echo", value=1), call(2, "spin", seconds=1), call(3, "echo", value=3)]
        said += [call(4, "echo", value=4), call(5, "echo", value=5), p.Cancel(4), p.Recall((5,))]
        host.write(b"".join(p.frame(p.encode_message(message)) for message in said))
        assert host.hear() == ("Settled", 4, False)
        assert host.hear() == ("Returned", (5,))
        assert host.hear() == ("Result", 1, 1)
        host.say(p.Recall((3,)))
        assert {host.hear(), host.hear()} == {("Result", 2, None), ("Returned", (3,))}


def test_a_session_keeps_its_state_until_its_end_which_comes_in_the_order_of_calls() -> None:
    """A call that waits when the end comes still belongs to the old session."""

    def remember(number: int, session: str | None = "a") -> p.Call:
        body, buffers = p.encode_params({"value": number})
        return p.Call(number, "remember", body, buffers, session=session)

    with conversation() as host:
        host.say(remember(1), remember(2, "b"), remember(3), remember(4, None))
        assert [host.hear()[2] for _ in range(4)] == [[1], [2], [1, 3], [4]]
        host.say(call(5, "watch", window=1))
        assert host.hear() == ("Item", 5, "watching")
        host.say(remember(6), p.EndSession("a"), remember(7), p.EndSession("never seen"))
        host.say(p.Cancel(5))
        assert host.hear() == ("Settled", 5, True)
        assert [host.hear()[2] for _ in range(2)] == [[1, 3, 6], [7]]
        host.say(remember(8, "b"), remember(9, None))
        assert [host.hear()[2] for _ in range(2)] == [[2, 8], [9]]


def test_cancel_of_calls_that_run_wait_or_are_over_is_answered_once() -> None:
    with conversation() as host:
        occupy(host)
        host.say(call(2, "echo", value=2), p.Cancel(2), p.Cancel(2), p.Cancel(99))
        assert host.hear() == ("Settled", 2, False)
        host.say(p.Cancel(1), p.Cancel(1))
        assert host.hear() == ("Settled", 1, True)
        host.say(p.Cancel(1), call(3, "echo", value=3))
        assert host.hear() == ("Result", 3, 3)


def test_progress_comes_before_the_answer_and_not_after_a_cancel() -> None:
    """The first update at once, and the last one in any case."""
    with conversation() as host:
        host.say(call(1, "work", steps=50))
        told = [host.hear()]
        while told[-1][0] == "Progress":
            told.append(host.hear())
        assert told.pop() == ("Result", 1, 50)
        assert told[0] == ("Progress", 1, 1, 50, "step 1")
        assert told[-1] == ("Progress", 1, 50, 50, "step 50")
        host.say(call(2, "work", steps=2, ms=5))
        assert host.hear() == ("Progress", 2, 1, 2, "step 1")
        assert host.hear() == ("Progress", 2, 2, 2, "step 2")
        assert host.hear() == ("Result", 2, 2)
        host.say(call(3, "work", steps=2, ms=FOREVER_S * 1000))
        assert host.hear() == ("Progress", 3, 1, 2, "step 1")
        host.say(p.Cancel(3), call(4, "echo", value=4))
        assert host.hear() == ("Settled", 3, True)
        assert host.hear() == ("Result", 4, 4)


def test_host_calls_wait_for_their_answers_and_end_with_their_call() -> None:
    with conversation() as host:
        host.say(call(1, "askAll", name="n", times=2))
        assert host.hear() == ("HostCall", 1, 1, "n", {"number": 0})
        assert host.hear() == ("HostCall", 2, 1, "n", {"number": 1})
        one, two = (p.encode_value(value)[0] for value in ("one", "two"))
        host.say(p.HostReply(2, two), p.HostReply(99), p.HostReply(1, one))
        assert host.hear() == ("Result", 1, ["one", "two"])
        host.say(call(2, "ask", name="n"))
        assert host.hear() == ("HostCall", 3, 2, "n", {})
        host.say(p.Cancel(2))
        assert host.hear() == ("Settled", 2, True)
        host.say(p.HostReply(3, *p.encode_value(b"y" * 2 * p.PART_BYTES_MAX)))
        host.say(call(3, "askInTime", name="n", ms=10))
        assert host.hear() == ("HostCall", 4, 3, "n", {})
        assert host.hear() == ("HostCancel", 4, 3)
        assert host.hear() == ("Result", 3, "TimeoutError")
        host.say(call(4, "askAll", name="n", times=2))
        assert [host.hear()[0], host.hear()[0]] == ["HostCall"] * 2
        host.say(p.HostFailure(5, "tool", p.describe(KeyError("k"))))
        assert host.hear() == ("Failure", 4, "tool")
        host.say(p.HostReply(6, one), call(5, "echo", value="after"))
        assert host.hear() == ("Result", 5, "after")


async def test_it_calls_host_tools_and_hands_on_their_errors() -> None:
    async with node_pool() as pool:

        @pool.host_tool
        async def number(number: int = 7) -> int:
            await anyio.lowlevel.checkpoint()
            return number

        @pool.host_tool
        def double(value: bytes) -> bytes:
            return value * 2

        @pool.host_tool
        def fail() -> None:
            raise FileNotFoundError(2, "gone")

        @pool.host_tool
        async def sleep() -> None:
            await anyio.sleep(FOREVER_S)

        assert await pool.execute("ask", {"name": "number"}) == 7
        assert await pool.execute("askAll", {"name": "number", "times": 50}) == list(range(50))
        value = bytes(range(256)) * 10_000
        params = {"name": "double", "params": {"value": value}}
        assert await pool.execute("ask", params) == value * 2
        with pytest.raises(FileNotFoundError) as caught:
            await pool.execute("ask", {"name": "fail"})
        assert isinstance(caught.value, ToolError)
        assert caught.value.type == "builtins.FileNotFoundError"
        with pytest.raises(LookupError):
            await pool.execute("ask", {"name": "eval"})
        with pytest.raises(CallTimeoutError):
            await pool.execute("ask", {"name": "sleep"}, timeout=0.5)
        assert await pool.execute("askInTime", {"name": "sleep", "ms": 10}) == "TimeoutError"
        assert pool.stats().restarts == 0


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


def test_cancel_is_heard_by_a_stream_that_awaits_nothing_and_has_credit() -> None:
    """After what fits into the pipe, not after all that the window allows."""
    with conversation() as host:
        host.say(call(1, "count", window=2**16, until=2**16))
        assert host.hear() == ("Item", 1, 0)
        host.say(p.Cancel(1))
        count = 1
        while host.hear() != ("Settled", 1, True):
            count += 1
        assert count < 2**15


def test_a_forgotten_transfer_is_dropped_and_others_may_alternate() -> None:
    with conversation() as host:
        for transfer, data in ((1, b"a"), (2, b"b"), (1, b"c"), (2, b"d")):
            host.say(p.Part(transfer, memoryview(data)))
        host.say(call(5, "echo", value="between"), p.Part(1, None), p.Part(9, None))
        for transfer in range(10, 10 + p.TRANSFERS_OPEN_MAX):
            host.say(p.Part(transfer, memoryview(b"e")), p.Part(transfer, None))
        host.write(p.frame(p.encode_message(p.Call(6, "echo", BUFFER_0, (2,)))))
        assert host.hear() == ("Result", 5, "between")
        assert host.hear() == ("Result", 6, b"bd")


def test_shutdown_is_answered_by_goodbye_and_exit() -> None:
    with conversation() as host:
        host.say(p.Shutdown(10))
        assert host.hear() == ("Goodbye",)
        assert host.hear() is None
        assert host.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("sign", ["end of stdin", "SIGTERM"])
@pytest.mark.parametrize("tool", ["count", "watch", "sleep", "none"])
def test_a_worker_that_is_alone_ends_its_call_cleans_up_and_exits(sign: str, tool: str) -> None:
    with conversation() as host:
        if tool in ("count", "watch"):
            host.say(call(1, tool, window=1, **({"until": 10} if tool == "count" else {})))
            assert host.hear()[0] == "Item"
        elif tool == "sleep":
            host.say(call(1, tool, seconds=FOREVER_S))
        if tool != "none":
            host.say(call(2, "echo", value="too late"), p.Recall(()))
            assert host.hear() == ("Returned", ())
        if sign == "SIGTERM":
            host.process.terminate()
        else:
            host.to.close()
        if tool != "none":
            assert host.hear() == ("Settled", 1, True)
        assert host.hear() is None
        assert host.process.wait(PATIENCE_S) == 0
        assert host.process.stderr is not None
        said = host.process.stderr.read().decode()
        assert said == ("stopped watching\n" if tool == "watch" else "") + "cleaned up\n"


CALL_1 = p.frame(p.encode_message(p.Call(1, "echo", BUFFER_0, (7,))))
PART_7 = p.frame(b"\x93\x10\x07\xc4\x01a")
MORE_BREACHES = BREACHES | {
    "transfer named twice": PART_7 + 2 * CALL_1,
    "transfer that was forgotten": PART_7 + p.frame(b"\x93\x10\x07\xc0") + CALL_1,
    "too many transfers": b"".join(
        p.frame(b"\x93\x10\xcd" + number.to_bytes(2, "big") + b"\xc4\x00")
        for number in range(p.TRANSFERS_OPEN_MAX + 1)
    ),
    "end inside a prefix": p.frame(b"\x91\x06")[:2],
    "end inside a frame": p.frame(b"\x91\x06")[:5],
}


@pytest.mark.parametrize("breach", MORE_BREACHES)
def test_a_breach_by_the_host_ends_the_worker_with_a_word_on_stderr(breach: str) -> None:
    with conversation() as host:
        host.write(MORE_BREACHES[breach])
        if breach.startswith("end"):
            host.to.close()
        assert host.hear() is None
        assert host.process.wait(PATIENCE_S) == 1
        assert host.process.stderr is not None
        assert b"the host broke the protocol" in host.process.stderr.read()


def test_left_out_and_appended_fields_and_integers_of_any_width_are_taken() -> None:
    with conversation() as host:
        host.write(p.frame(b"\x93\x02\x01\xa3pid"))
        assert host.hear() == ("Failure", 1, "params"), "a body of nil is no map"
        host.write(p.frame(b"\x94\x02\x02\xa3pid\x80"))
        assert host.hear() == ("Result", 2, host.process.pid)
        host.write(p.frame(b"\x9a\x02\x03\xa3pid\x80\x90\xc0\x00\xc0\xa3new\xc0"))
        assert host.hear() == ("Result", 3, host.process.pid)
        wide = b"\xcf" + (2**53 - 1).to_bytes(8, "big")
        window = b"\xcf" + (1).to_bytes(8, "big")
        host.write(
            p.frame(
                b"\x97\x02" + wide + b"\xa5count\x81\xa5until\xd2\x00\x00\x00\x02\x90\xc0" + window
            )
        )
        assert host.hear() == ("Item", 2**53 - 1, 0)
        host.write(p.frame(b"\x93\x04" + wide + window))
        assert [host.hear(), host.hear()] == [("Item", 2**53 - 1, 1), ("End", 2**53 - 1)]
        host.write(p.frame(b"\x93\x02" + wide[:-1] + b"\xfe\xa3pid"))
        assert host.hear() == ("Failure", 2**53 - 2, "params")
