"""Which trace a call is part of: who says so, and what makes no sense."""

from __future__ import annotations

import sys
from collections.abc import Generator
from types import ModuleType

import pytest
from _backends import one_loop_each
from opentelemetry import trace as opentelemetry

import snakepit
from snakepit import Adapter, context, tool
from snakepit._trace_context import current_trace, trace_of

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.mark.parametrize(
    "traceparent",
    [PARENT, PARENT[:-2] + "00", f"cc{PARENT[2:]}", f"cc{PARENT[2:]}-what-comes-with-it"],
)
def test_a_traceparent_of_this_version_or_a_later_one_is_taken(traceparent: str) -> None:
    assert trace_of(traceparent, None) == (traceparent,)
    assert trace_of(traceparent, " a=1,b=2 ") == (traceparent, "a=1,b=2")


@pytest.mark.parametrize(
    "traceparent",
    [
        None,
        "",
        f"{PARENT}-more",
        f"ff{PARENT[2:]}",
        PARENT.upper(),
        PARENT.replace("a", "0"),
        PARENT.replace("b", "0"),
        f" {PARENT}",
        f"{PARENT}\n",
        f"cc{PARENT[2:]}-{'x' * 201}",
    ],
)
def test_one_that_makes_no_sense_says_nothing_whatever_its_state(traceparent: str | None) -> None:
    assert trace_of(traceparent, "a=1") == ()


@pytest.mark.parametrize("tracestate", [None, "", " ", "a=\n1", "ü=1", "a=" + "1" * 4095])
def test_a_tracestate_that_is_none_is_left_out(tracestate: str | None) -> None:
    assert trace_of(PARENT, tracestate) == (PARENT,)


@pytest.fixture
def span() -> Generator[None]:
    """A block of OpenTelemetry's, in the program that has loaded that."""
    state = opentelemetry.TraceState([("vendor", "1")])
    flags = opentelemetry.TraceFlags(opentelemetry.TraceFlags.SAMPLED)
    of = opentelemetry.SpanContext(0xA, 0xB, is_remote=False, trace_flags=flags, trace_state=state)
    with opentelemetry.use_span(opentelemetry.NonRecordingSpan(of)):
        yield


@pytest.mark.usefixtures("span")
def test_the_current_span_of_opentelemetry_is_taken_by_itself() -> None:
    assert current_trace() == (f"00-{10:032x}-{11:016x}-01", "vendor=1")


@pytest.mark.usefixtures("span")
def test_a_block_of_ours_goes_before_it_until_it_is_left() -> None:
    with snakepit.trace_context({"traceparent": PARENT, "host": "example.com"}):
        assert current_trace() == (PARENT,)
        with snakepit.trace_context({}):
            assert current_trace() == ()
        assert current_trace() == (PARENT,)
    assert current_trace()[1] == "vendor=1"


def test_without_a_span_there_is_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    assert current_trace() == ()
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", ModuleType("it is just importing"))
    assert current_trace() == ()
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    assert current_trace() == ()


class Traced(Adapter):
    @tool
    async def trace(self) -> dict[str, str]:
        return context().trace_context


@one_loop_each
async def test_a_call_has_the_trace_of_who_makes_it_not_of_who_opened_the_pool() -> None:
    with snakepit.trace_context({"traceparent": PARENT}):
        async with snakepit.open_pool(Traced, size=1, transport="memory") as pool:
            assert await pool.execute("trace") == {"traceparent": PARENT}
            other = PARENT.replace("a", "c")
            with snakepit.trace_context({"traceparent": other}):
                assert await pool.execute("trace") == {"traceparent": other}
            with snakepit.trace_context({}):
                assert await pool.execute("trace") == {}
