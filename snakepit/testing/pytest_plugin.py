"""Fixtures for pytest: pools whose transport the command line or a mark chooses.

Asked for in a conftest.py, and by nothing else:

    pytest_plugins = ["snakepit.testing.pytest_plugin"]

It works with anyio's plugin and with pytest-trio. pytest is no dependency of snakepit: this module
is imported where it is asked for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from snakepit.errors import ConfigError
from snakepit.pool import Pool, open_pool
from snakepit.testing import Faults, MemoryTransport
from snakepit.transports import Transport

OPTION = "--snakepit-transport"
DEFAULT_TRANSPORT = "memory"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--snakepit-transport`, once for each transport that the tests shall run on."""
    parser.getgroup("snakepit").addoption(
        OPTION,
        action="append",
        metavar="NAME",
        help=f"transport of the pools in tests, as open_pool takes it (default: {DEFAULT_TRANSPORT}); "
        "given more than once, each test runs on each",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The mark is known, also under --strict-markers."""
    config.addinivalue_line(
        "markers",
        "snakepit(adapter=None, transport=None, faults=None, **options): what snakepit_pool opens. "
        "A transport, or a list of them, goes before the command line; faults are a script for "
        "snakepit.testing.Faults, for pools in memory",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test of a pool runs on each transport that it is wanted on."""
    if "snakepit_transport" not in metafunc.fixturenames:
        return
    wanted = _marked(metafunc.definition)
    chosen = wanted.get("transport")
    if chosen is None and wanted.get("faults") is not None:
        chosen = "memory"
    if chosen is None:
        chosen = metafunc.config.getoption(OPTION) or DEFAULT_TRANSPORT
    transports = chosen if isinstance(chosen, list | tuple) else [chosen]
    if not transports:
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid}: transport=[] names no transport, so the test would run on none"
        )
    ids = [one if isinstance(one, str) else one.name for one in transports]
    metafunc.parametrize("snakepit_transport", transports, ids=ids, indirect=True)


@pytest.fixture
def snakepit_transport(request: pytest.FixtureRequest) -> str | Transport:
    """The transport of this test's pools: what its mark says, or else the command line."""
    transport: str | Transport = request.param
    return transport


@pytest.fixture
def snakepit_open_pool(
    snakepit_transport: str | Transport,
) -> Callable[..., AbstractAsyncContextManager[Pool]]:
    """`snakepit.open_pool`, on this test's transport where the call names no other."""

    def open_on_transport(*adapter: Any, **options: Any) -> AbstractAsyncContextManager[Pool]:
        return open_pool(*adapter, **{"transport": snakepit_transport} | options)

    return open_on_transport


@pytest.fixture
async def snakepit_pool(
    request: pytest.FixtureRequest,
    snakepit_transport: str | Transport,
) -> AsyncGenerator[Pool]:
    """A pool as the marks say, `@pytest.mark.snakepit(adapter=Words, size=2)`; of one worker by default.

    Marks of the module and of the class hold too, the nearest goes first. Scripted faults that have not
    happened when the test ends fail it.
    """
    options = {"size": 1} | _marked(request.node) | {"transport": snakepit_transport}
    adapter = options.pop("adapter", None)
    script: Mapping[str, Any] | None = options.pop("faults", None)
    faults = None if script is None else Faults(script)
    if faults is not None:
        if snakepit_transport != "memory":
            raise ConfigError("faults", script, "a pool whose transport is 'memory'")
        options["transport"] = MemoryTransport(faults=faults)
    async with open_pool(adapter, **options) as pool:
        yield pool
    if faults is not None:
        left = {name: [one for one in rest if one] for name, rest in faults.left.items()}
        left = {name: rest for name, rest in left.items() if rest}
        if left:
            raise AssertionError(f"these faults did not happen: {left}")


def _marked(node: pytest.Item) -> dict[str, Any]:
    """What all marks say together."""
    found: dict[str, Any] = {}
    for mark in node.iter_markers("snakepit"):  # the nearest first
        if mark.args:
            # A class alone would be taken by pytest for what is to be marked, so none comes this way.
            allowed = "options by name, also the adapter: snakepit(adapter=...)"
            raise ConfigError("pytest.mark.snakepit", mark.args, allowed)
        found = {**mark.kwargs, **found}
    return found
