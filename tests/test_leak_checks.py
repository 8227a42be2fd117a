"""The leak checks, checked: each kind of leak is reported with the name of its test."""

import os
import textwrap
from pathlib import Path

import pytest
from coverage.collector import Collector

HEADER = """
import gc, os, signal, socket, subprocess, sys, threading, time
import pytest
"""

LEAKS = {
    "child": (
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).returncode = 0",
        "child process",
    ),
    "unreaped_child": (
        "subprocess.Popen([sys.executable, '-c', '']).returncode = 0; time.sleep(0.3)",
        "(zombie:",
    ),
    "orphan": ("subprocess.run(['sh', '-c', 'sleep 61 & exit 0'])", "sleep 61"),
    "fd": ("os.pipe()", "file descriptor"),
    "thread": ("threading.Thread(target=time.sleep, args=(5,), daemon=True).start()", "thread "),
    "shm": (
        "open(f'/dev/shm/snakepit-test-{os.getpid()}', 'w').close()",
        "shared memory /dev/shm/snakepit-test-",
    ),
    "resource": ("socket.socketpair()", "ResourceWarning"),
    "resource_in_a_cycle": (
        "loop = list(socket.socketpair()); loop.append(loop); del loop",
        "ResourceWarning",
    ),
}


@pytest.fixture
def inner(pytester: pytest.Pytester, request: pytest.FixtureRequest, monkeypatch):
    """Run a source as a test module of its own, under this tree's checks."""
    root = request.config.rootpath
    monkeypatch.setenv("PYTHONPATH", f"{root / 'tests'}{os.pathsep}{root}")
    for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    pytester.makeconftest("pytest_plugins = ['_backends', '_leaks', '_skips']")
    pytester.makeini("[pytest]\nfilterwarnings = error\nmarkers = blocking_ok")

    def run(source: str) -> pytest.RunResult:
        pytester.makepyfile(HEADER + textwrap.dedent(source))
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", timeout=30)

    return run


@pytest.mark.parametrize("kind", LEAKS)
def test_a_leak_is_reported_with_the_name_of_its_test(kind, inner) -> None:
    statement, complaint = LEAKS[kind]
    result = inner(f"""
    def test_leaking():
        {statement}

    def test_innocent():
        pass
    """)
    if "shm" in kind:  # the run is over: clear up after it
        for path in result_paths(result):
            path.unlink()
    outcomes = result.parseoutcomes()
    # A ResourceWarning that comes while the test still runs fails the test, not its teardown.
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) == 1
    result.stdout.fnmatch_lines(["*test_leaking *"])
    assert complaint in result.stdout.str()


def result_paths(result: pytest.RunResult):
    words = result.stdout.str().split()
    return {Path(word) for word in words if word.startswith("/dev/shm/snakepit-test-")}


def test_an_orphan_that_has_exited_is_no_leak(inner) -> None:
    result = inner("""
    def test_orphan():
        subprocess.run(['sh', '-c', '(sleep 0.1) & exit 0'])
        time.sleep(0.3)
    """)
    result.assert_outcomes(passed=1)


def test_what_belongs_to_a_wider_fixture_is_no_leak(inner) -> None:
    result = inner("""
    @pytest.fixture(scope="module")
    def worker():
        with subprocess.Popen(["sleep", "60"]) as process:
            yield process
            process.kill()

    def test_first(worker):
        assert worker.poll() is None

    def test_second(worker):
        assert worker.poll() is None
    """)
    result.assert_outcomes(passed=2)


def test_a_failed_test_leaves_no_process_to_the_next(inner) -> None:
    result = inner("""
    def test_failing():
        subprocess.Popen(["sleep", "62"]).returncode = 0
        assert False

    def test_next():
        import psutil
        assert psutil.Process().children() == []
    """)
    result.assert_outcomes(passed=1, failed=1)


def test_plain_async_tests_run_on_both_loops_and_marked_ones_on_one(inner) -> None:
    result = inner("""
    import anyio, sniffio, trio
    from _backends import asyncio_only, trio_only, virtual_time

    async def test_both(anyio_backend_name):
        assert sniffio.current_async_library() == anyio_backend_name

    @trio_only
    async def test_trio():
        assert sniffio.current_async_library() == "trio"

    @asyncio_only
    async def test_asyncio():
        assert sniffio.current_async_library() == "asyncio"

    @virtual_time
    async def test_virtual():
        before = anyio.current_time()
        await anyio.sleep(3600)
        assert anyio.current_time() - before >= 3600

    @virtual_time
    async def test_virtual_again():
        await anyio.sleep(3600)

    @pytest.mark.trio
    async def test_pytest_trio(nursery, autojump_clock):
        nursery.start_soon(trio.sleep, 3600)
        await trio.to_thread.run_sync(int)

    class TestInClass:
        async def test_both(self):
            await anyio.to_thread.run_sync(int)
    """)
    result.assert_outcomes(passed=9)


def test_cases_that_take_turns_run_once_each_and_on_both_loops(inner) -> None:
    result = inner("""
    from _backends import one_loop_each

    pytestmark = one_loop_each
    ran = []

    @pytest.mark.parametrize("case", range(5))
    async def test_cases(case, anyio_backend_name):
        ran.append((case, anyio_backend_name))

    def test_afterwards():
        assert sorted(case for case, _ in ran) == [0, 1, 2, 3, 4]
        assert {loop for _, loop in ran} == {"trio", "asyncio"}
    """)
    result.assert_outcomes(passed=6, deselected=5)


def test_blocking_the_asyncio_loop_from_snakepit_is_an_error(inner, pytester) -> None:
    package = pytester.mkpydir("snakepit")
    (package / "naps.py").write_text("import time\ndef nap(): time.sleep(0.01)\n")
    result = inner("""
    from _backends import asyncio_only
    from snakepit.naps import nap
    import blockbuster

    @asyncio_only
    async def test_caught():
        with pytest.raises(blockbuster.BlockingError):
            nap()

    @asyncio_only
    @pytest.mark.blocking_ok("on purpose")
    async def test_allowed():
        nap()

    def test_outside_a_loop():
        nap()
    """)
    result.assert_outcomes(passed=3)


def test_a_skip_without_an_agreed_reason_fails_the_run(inner) -> None:
    agreed = inner("""
    def test_one():
        pytest.skip("needs macOS")
    """)
    assert agreed.ret == 0
    agreed.stdout.fnmatch_lines(["skipped: *test_one: needs macOS"])
    other = inner("""
    def test_one():
        pytest.skip("no time")
    """)
    assert other.ret == 1
    other.stdout.fnmatch_lines(["skipped: *test_one: no time*NOT AN AGREED REASON"])


def test_no_thread_waits_for_a_lock_of_coverage() -> None:
    """Ctrl+C in the midst of it would leave it taken, and every later test would hang."""
    assert [collector.data_lock for collector in Collector._collectors if collector.data_lock] == []
