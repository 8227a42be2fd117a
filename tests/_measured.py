"""Coverage: what it measures, and how it is kept from getting in the way.

It measures worker processes in the tests of the worker's room alone.

A measured worker starts three times as slowly, and the other tests run the same lines of it. An
interrupt that meets coverage itself leaves its lock taken for good, so that the worker hangs:
tests that interrupt at any moment are marked `unmeasured`. Simulations, which run the same lines
again and again, are not measured either. The tests themselves, which know Ctrl+C,
are measured without that lock.
"""

import os
import sys
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager

import coverage
import pytest
from coverage.collector import Collector

_switches = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_PROC")}


def pytest_configure() -> None:
    """Let no thread wait for coverage's lock. It guards steps that are one under the GIL anyway."""
    if coverage.Coverage.current() is not None:
        for collector in Collector._collectors:
            collector.data_lock = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    if item.path.parent.name != "simulation":
        return (yield)
    here, elsewhere = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(here)
        threading.settrace(elsewhere)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    is_measured = item.path.parent.name == "worker" and not item.get_closest_marker("unmeasured")
    for name, value in _switches.items():
        if is_measured:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)


@contextmanager
def looking_away() -> Generator[None]:
    """Coverage looks away: it more than doubles the time that a long run in memory takes."""
    coverage = None
    if "coverage" in sys.modules:
        coverage = sys.modules["coverage"].Coverage.current()
    if coverage is None:
        yield
        return
    coverage.stop()
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is told that snakepit is imported already
            coverage.start()
