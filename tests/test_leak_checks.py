"""The leak checks, checked: each kind of leak is reported with the name of its test."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import pytest
from _leaks import unmeasured_env
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


# Runs that end well, each in a module of its own.
CLEAN = {
    "an_orphan_that_has_exited": """
    def test_orphan():
        subprocess.run(['sh', '-c', '(sleep 0.1) & exit 0'])
        time.sleep(0.3)
    """,
    "an_orphan_with_the_pid_of_an_earlier_child": """
    def test_orphan():
        import _leaks
        script = '(sleep 0.1) > /dev/null 2>&1 & echo $!; exit 0'
        pid = int(subprocess.run(['sh', '-c', script], stdout=subprocess.PIPE).stdout)
        _leaks._spawned.add((pid, 1.0))
        time.sleep(0.3)
    """,
    "what_belongs_to_a_wider_fixture": """
    @pytest.fixture(scope="module")
    def worker():
        with subprocess.Popen(["sleep", "60"]) as process:
            yield process
            process.kill()

    def test_first(worker):
        assert worker.poll() is None

    def test_second(worker):
        assert worker.poll() is None
    """,
    "both_loops_or_one": """
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
    """,
    "cases_that_take_turns": """
    from _backends import asyncio_only, one_loop_each, trio_only

    pytestmark = one_loop_each
    ran = []

    @pytest.mark.parametrize("case", range(5))
    async def test_cases(case, anyio_backend_name):
        ran.append((case, anyio_backend_name))

    @trio_only
    async def test_trio():
        ran.append("trio")

    @asyncio_only
    async def test_asyncio():
        ran.append("asyncio")

    def test_afterwards():
        turns = [turn for turn in ran if isinstance(turn, tuple)]
        assert sorted(case for case, _ in turns) == [0, 1, 2, 3, 4]
        assert {loop for _, loop in turns} == {"trio", "asyncio"}
        assert {"trio", "asyncio"} <= set(ran)
    """,
    "blocking_the_loop": """
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
    """,
    "an_agreed_skip": """
    def test_one():
        pytest.skip("needs macOS")
    """,
}


class Run:
    """A run of pytest under this tree's checks, over some modules; what came of each test."""

    def __init__(self, folder: Path, root: Path, sources: dict[str, str]) -> None:
        (folder / "conftest.py").write_text(
            "pytest_plugins = ['_backends', '_leaks', '_skips']", encoding="utf-8"
        )
        (folder / "pytest.ini").write_text(
            "[pytest]\nfilterwarnings = error\nmarkers =\n  blocking_ok\n  one_loop_each\n  trio\n",
            encoding="utf-8",
        )
        for name, source in sources.items():
            text = HEADER + textwrap.dedent(source)
            (folder / f"test_{name}.py").write_text(text, encoding="utf-8")
        report = folder / "report.xml"
        env = unmeasured_env() | {"PYTHONPATH": f"{root / 'tests'}{os.pathsep}{root}"}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}"],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        self.code, self.stdout = done.returncode, done.stdout
        self._cases = list(ElementTree.parse(report).iter("testcase"))

    def complaints(self, module: str, test: str) -> list[str]:
        """What the checks said of a test that ran: nothing, if all was well."""
        cases = [
            case
            for case in self._cases
            if case.get("classname") == f"test_{module}" and case.get("name") == test
        ]
        assert cases, f"{module}::{test} did not run"
        return [
            f"{found.get('message')} {found.text}"
            for case in cases
            for found in case
            if found.tag in {"failure", "error"}
        ]

    def count(self, module: str) -> int:
        prefix = f"test_{module}"
        return sum(str(case.get("classname")).startswith(prefix) for case in self._cases)


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Run:
    sources = {
        kind: f"def test_leaking():\n    {statement}\n\ndef test_innocent():\n    pass\n"
        for kind, (statement, _) in LEAKS.items()
    }
    sources["failing"] = """
    def test_failing():
        subprocess.Popen(["sleep", "62"]).returncode = 0
        assert False

    def test_next():
        import psutil
        assert psutil.Process().children() == []
    """
    run = Run(tmp_path_factory.mktemp("leaking"), request.config.rootpath, sources)
    for word in run.stdout.split():  # the run is over: clear up after it
        if word.startswith("/dev/shm/snakepit-test-"):
            Path(word).unlink(missing_ok=True)
    return run


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Run:
    folder = tmp_path_factory.mktemp("clean")
    (folder / "snakepit").mkdir()
    (folder / "snakepit/__init__.py").write_text("")
    (folder / "snakepit/naps.py").write_text("import time\ndef nap(): time.sleep(0.01)\n")
    return Run(folder, request.config.rootpath, CLEAN)


@pytest.mark.parametrize("kind", LEAKS)
def test_a_leak_is_reported_with_the_name_of_its_test(kind: str, leaking: Run) -> None:
    """A ResourceWarning that comes while the test still runs fails it, not its teardown."""
    (complaint,) = leaking.complaints(kind, "test_leaking")
    assert LEAKS[kind][1] in complaint
    assert leaking.complaints(kind, "test_innocent") == []


def test_a_failed_test_leaves_no_process_to_the_next(leaking: Run) -> None:
    assert len(leaking.complaints("failing", "test_failing")) == 1
    assert leaking.complaints("failing", "test_next") == []


@pytest.mark.parametrize(
    ("module", "count"),
    [
        ("an_orphan_that_has_exited", 1),
        ("what_belongs_to_a_wider_fixture", 2),
        ("both_loops_or_one", 9),
        ("cases_that_take_turns", 8),
        ("blocking_the_loop", 3),
        ("an_agreed_skip", 1),
    ],
)
def test_what_is_well_is_not_reported(module: str, count: int, clean: Run) -> None:
    assert clean.code == 0, clean.stdout
    assert clean.count(module) == count


def test_skips_are_told_and_one_without_an_agreed_reason_fails_the_run(
    clean: Run, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    assert re.search("skipped: .*test_one: needs macOS", clean.stdout)
    source = "def test_one():\n    pytest.skip('no time')\n"
    other = Run(tmp_path, request.config.rootpath, {"skip": source})
    assert other.code == 1
    assert re.search("skipped: .*test_one: no time.*NOT AN AGREED REASON", other.stdout)


def test_no_thread_waits_for_a_lock_of_coverage() -> None:
    """Ctrl+C in the midst of it would leave it taken, and every later test would hang."""
    assert [collector.data_lock for collector in Collector._collectors if collector.data_lock] == []
