"""Coverage: what it measures, and how it is kept from getting in the way.

It measures worker processes in the tests of the worker's room alone. A measured worker starts three
times as slowly, and the other tests run the same lines of it. An interrupt that meets coverage itself
leaves its lock taken for good, so that the worker hangs: tests that interrupt at any moment are marked
`unmeasured`. The tests themselves, which know Ctrl+C, are measured without that lock. Both are only
measured where they may tell something new: not where they are marked, or are simulations or what
Hypothesis draws, which run the same lines again and again and would take two or three times as long;
nor on asyncio, where they run what they run on trio, if they do.
"""

import os
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, nullcontext

import coverage
import pytest
from _backends import LOOP_NAMES, asyncio_only
from coverage.collector import Collector

_switches = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_PROC")}


@contextmanager
def looking_away() -> Generator[None]:
    """Coverage does not see what this thread does, nor those that it starts."""
    here, elsewhere = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]
    try:
        yield
    finally:
        sys.settrace(here)
        threading.settrace(elsewhere)  # type: ignore[arg-type]


def pytest_configure() -> None:
    """Let no thread wait for coverage's lock. It guards steps that are one under the GIL anyway."""
    if coverage.Coverage.current() is not None:
        for collector in Collector._collectors:
            collector.data_lock = None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    measured = item.path.parent.name == "worker" and is_measured(item)
    for name, value in _switches.items():
        if measured:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with nullcontext() if is_measured(item) else looking_away():
        return (yield)


def is_measured(item: pytest.Item) -> bool:
    """Whether coverage sees what the test does: in its own process, and in those of the worker's room."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    loops = {params[name] for name in LOOP_NAMES if name in params}
    on_asyncio = "asyncio" in loops and not _is_of_asyncio(item)
    marked = item.get_closest_marker("unmeasured") is not None
    drawn = hasattr(getattr(item, "obj", None), "hypothesis")
    return not (on_asyncio or marked or drawn or item.path.parent.name == "simulation")


def _is_of_asyncio(item: pytest.Item) -> bool:
    """Does it run on no other loop, as what lives on asyncio alone?"""
    only = asyncio_only.mark.args
    return any(mark.args == only for mark in item.iter_markers("parametrize"))
