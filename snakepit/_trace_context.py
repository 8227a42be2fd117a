"""Which trace a call is part of, as W3C Trace Context writes it: `traceparent`, `tracestate`.

Nothing is traced here. The context travels, so that whoever traces on either side sees one trace: it is
that of the code that makes the call, as `trace_context` says, or else the current span of OpenTelemetry,
where the program has loaded that.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeAlias

Trace: TypeAlias = tuple[str, ...]  # traceparent and tracestate; without the latter, or neither

NO_TRACE: Final[Trace] = ()
HEADERS: Final = ("traceparent", "tracestate")
TRACESTATE_CHARS_MAX: Final = 4096  # a longer one may be left out, says the specification

# A later version may append something to it; version ff, and zeros, mean nothing.
_TRACEPARENT: Final = r"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{0,200})?"

_said: ContextVar[Trace | None] = ContextVar("snakepit_trace", default=None)  # None: nothing yet


@contextmanager
def trace_context(headers: Mapping[str, str]) -> Generator[None]:
    """Calls made in this block are part of the trace that these headers name.

        with snakepit.trace_context(request.headers):
            await pool.execute("predict", {"text": "hello"})

    For programs without OpenTelemetry: where that is loaded, its current span is taken by itself, but
    for such a block. A tool finds what it is part of in `context().trace_context`.

    Args:
        headers: `traceparent`, and `tracestate` beside it; everything else is ignored. Where there is
            no traceparent, or one that makes no sense, calls in the block are part of no trace.
    """
    token = _said.set(trace_of(headers.get("traceparent"), headers.get("tracestate")))
    try:
        yield
    finally:
        _said.reset(token)


def trace_of(traceparent: str | None, tracestate: str | None) -> Trace:
    """What these headers say. A traceparent that makes no sense says nothing, as W3C has it."""
    if traceparent is None or not re.fullmatch(_TRACEPARENT, traceparent):
        return NO_TRACE
    state = (tracestate or "").strip()
    is_header = state.isascii() and state.isprintable() and len(state) <= TRACESTATE_CHARS_MAX
    return (traceparent, state) if state and is_header else (traceparent,)


def current_trace() -> Trace:
    """The trace that the code that runs now is part of."""
    said = _said.get()
    if said is not None:
        return said
    opentelemetry = sys.modules.get("opentelemetry.trace")
    return NO_TRACE if opentelemetry is None else _of_current_span(opentelemetry)


def be_part_of(trace: Trace) -> None:
    """From here on this task works on behalf of that trace, or of none."""
    _said.set(trace)


def headers_of(trace: Trace) -> dict[str, str]:
    """As headers, or as metadata of gRPC; without a trace there are none."""
    return dict(zip(HEADERS, trace, strict=False))


def _of_current_span(opentelemetry: Any) -> Trace:
    current_span = getattr(opentelemetry, "get_current_span", None)  # it may just be importing
    if current_span is None:
        return NO_TRACE
    span = current_span().get_span_context()
    if not span.is_valid:
        return NO_TRACE
    parent = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
    return trace_of(parent, span.trace_state.to_header())
