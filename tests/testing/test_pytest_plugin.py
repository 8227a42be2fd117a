"""`snakepit.testing.pytest_plugin`, in test runs of its own: as users have it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
CONFTEST = """
import pytest
pytest_plugins = ["snakepit.testing.pytest_plugin"]
"""
ADAPTER = """
import os
import threading
from snakepit import Adapter, tool

class Words(Adapter):
    def __init__(self, extra=0):
        self.extra = extra

    @tool(idempotent=True)
    def count(self, text: str) -> int:
        return len(text.split()) + self.extra

    @tool
    def pid(self) -> int:
        return os.getpid()
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(words=ADAPTER)
    return pytester


def run(project: pytest.Pytester, source: str, *arguments: str) -> pytest.RunResult:
    project.makepyfile(test_it="import os\nimport pytest\nfrom words import Words\n" + source)
    return project.runpytest_subprocess(
        "-p", "no:cacheprovider", "-p", "no:xdist", "--strict-markers", "-vv", *arguments
    )


WITH_ANYIO = """
pytestmark = pytest.mark.anyio

@pytest.mark.snakepit(adapter=Words)
async def test_count(snakepit_pool):
    assert await snakepit_pool.execute("count", {"text": "a snake"}) == 2
    assert len(snakepit_pool.workers()) == 1
"""


def test_under_anyio_a_marked_test_gets_its_pool_on_both_loops(project: pytest.Pytester) -> None:
    """In memory, unless something says otherwise."""
    result = run(project, WITH_ANYIO)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_count*asyncio*memory*PASSED*", "*test_count*trio*memory*"])


def test_the_command_line_swaps_the_transport_or_takes_several(project: pytest.Pytester) -> None:
    here = """
@pytest.fixture
def anyio_backend():
    return "trio"

@pytest.mark.anyio
@pytest.mark.snakepit(adapter=Words)
async def test_where(snakepit_pool, snakepit_transport):
    here = await snakepit_pool.execute("pid") == os.getpid()
    assert here == (snakepit_transport == "memory")
"""
    result = run(project, here, "--snakepit-transport=stdio")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*test_where*stdio*PASSED*"])
    result = run(project, here, "--snakepit-transport=stdio", "--snakepit-transport=memory")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_where*stdio*PASSED*", "*test_where*memory*PASSED*"])


def test_a_mark_goes_before_the_command_line_and_the_nearest_before_others(
    project: pytest.Pytester,
) -> None:
    source = """
pytestmark = [pytest.mark.trio, pytest.mark.snakepit(adapter=Words, size=2, adapter_args=(10,))]

async def test_of_the_module(snakepit_pool):
    assert await snakepit_pool.execute("count", {"text": ""}) == 10
    assert len(snakepit_pool.workers()) == 2

@pytest.mark.snakepit(size=1, transport="memory")
class TestOne:
    async def test_of_the_class(self, snakepit_pool, snakepit_transport):
        assert await snakepit_pool.execute("count", {"text": ""}) == 10
        assert len(snakepit_pool.workers()) == 1
        assert await snakepit_pool.execute("pid") == os.getpid()

    @pytest.mark.snakepit(adapter_args=(20,), transport=["memory", "stdio"])
    async def test_nearest(self, snakepit_pool, snakepit_transport):
        assert await snakepit_pool.execute("count", {"text": ""}) == 20
"""
    result = run(project, source, "--snakepit-transport=stdio")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        [
            "*test_of_the_module*stdio*PASSED*",
            "*test_of_the_class*memory*PASSED*",
            "*test_nearest*memory*PASSED*",
            "*test_nearest*stdio*PASSED*",
        ]
    )


def test_under_pytest_trio_with_its_clock_and_its_nursery(project: pytest.Pytester) -> None:
    source = """
import trio
from snakepit.testing import fake_adapter

@pytest.mark.trio
@pytest.mark.snakepit(adapter=fake_adapter(sleep=lambda: None, ponder=trio.sleep))
async def test_an_hour(snakepit_pool, autojump_clock, nursery):
    before = trio.current_time()
    await snakepit_pool.execute("ponder", {"seconds": 3600})
    assert trio.current_time() - before >= 3600
    nursery.start_soon(snakepit_pool.execute, "sleep")
"""
    run(project, source).assert_outcomes(passed=1)


def test_the_factory_opens_pools_by_hand_where_no_call_says_otherwise_on_the_transport(
    project: pytest.Pytester,
) -> None:
    source = """
@pytest.mark.anyio
async def test_by_hand(snakepit_open_pool):
    async with snakepit_open_pool(Words, size=1) as pool:
        assert await pool.execute("pid") != os.getpid()
    async with snakepit_open_pool(Words, size=1, transport="memory") as pool:
        assert await pool.execute("pid") == os.getpid()
    async with snakepit_open_pool(size=1) as pool:
        assert await pool.run_sync(abs, -1) == 1
"""
    result = run(project, source, "--snakepit-transport=stdio", "-k", "trio")
    result.assert_outcomes(passed=1, deselected=1)


FAULTS = """
from snakepit.testing import Die

@pytest.mark.anyio
@pytest.mark.snakepit(adapter=Words, faults={"Result": [None, Die(), None, Die()]})
async def test_again(snakepit_pool):
    for _ in range(CALLS):
        assert await snakepit_pool.execute("count", {"text": "a"}) == 1
    assert snakepit_pool.stats().restarts == 1
"""


def test_scripted_faults_happen_in_memory_whatever_the_command_line_says(
    project: pytest.Pytester,
) -> None:
    source = FAULTS.replace("CALLS", "2").replace(", None, Die()]", "]")
    result = run(project, source, "--snakepit-transport=stdio", "-k", "trio")
    result.assert_outcomes(passed=1, deselected=1)


def test_a_scripted_fault_that_did_not_happen_fails_its_test(project: pytest.Pytester) -> None:
    result = run(project, FAULTS.replace("CALLS", "2"), "-k", "trio")
    result.assert_outcomes(passed=1, errors=1, deselected=1)
    result.stdout.fnmatch_lines(["*AssertionError: these faults did not happen: {'Result': *Die(*"])


def test_faults_on_another_transport_are_refused(project: pytest.Pytester) -> None:
    source = FAULTS.replace("CALLS", "2").replace("faults=", "transport='stdio', faults=")
    result = run(project, source, "-k", "trio")
    result.assert_outcomes(errors=1, deselected=1)
    result.stdout.fnmatch_lines(["*ConfigError*a pool whose transport is 'memory'*"])


def test_a_mark_with_an_argument_that_has_no_name_is_refused(project: pytest.Pytester) -> None:
    source = """
@pytest.mark.anyio
@pytest.mark.snakepit("words:Words")
async def test_wrong(snakepit_pool):
    pass
"""
    result = run(project, source)
    assert "ConfigError" in result.stdout.str()
    assert "also the adapter: snakepit(adapter=...)" in result.stdout.str()


def test_a_mark_that_names_no_transport_is_an_error(project: pytest.Pytester) -> None:
    """And not a test that is skipped without a word."""
    source = """
@pytest.mark.snakepit(adapter=Words, transport=[])
def test_nowhere(snakepit_pool):
    pass
"""
    result = run(project, source)
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*names no transport*"])


def test_it_is_there_only_where_it_is_asked_for(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it="def test_it(snakepit_transport): pass")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'snakepit_transport' not found*"])


def test_the_examples_of_the_documentation_pass(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    examples = [block for block in BLOCK.findall(text) if "async def test_" in block]
    assert len(examples) == 2
    imports = "from examples.adapters.words import Words\nfrom snakepit.testing import Die\n"
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for transport in ("memory", "stdio"):
        result = run(project, imports + "\n".join(examples), f"--snakepit-transport={transport}")
        result.assert_outcomes(passed=3)
