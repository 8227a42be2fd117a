"""A run says at its end what it skipped and why; a reason that nobody agreed to fails it."""

import re
from pathlib import Path

import pytest

# Regular expressions; the whole reason must match one.
ALLOWED_SKIPS = (
    r"needs Linux",
    r"needs macOS",
    r"needs CPython 3\.\d+ or newer",
    r"needs unprivileged user namespaces",
    r"needs DuckDB",
    r"needs Node\.js 18 or newer, and what \.ci/node installs",
)

_skips: dict[str, str] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--skips-file", help="also write the list of skipped tests to this file")


def _record(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    _skips[report.nodeid] = reason.removeprefix("Skipped: ")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _record(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _record(report)


def _is_allowed(reason: str) -> bool:
    return any(re.fullmatch(pattern, reason) for pattern in ALLOWED_SKIPS)


def _lines() -> list[str]:
    if not _skips:
        return ["no test was skipped"]
    return [
        f"skipped: {nodeid}: {reason}{'' if _is_allowed(reason) else '  <- NOT AN AGREED REASON'}"
        for nodeid, reason in sorted(_skips.items())
    ]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.exitstatus == pytest.ExitCode.OK and not all(map(_is_allowed, _skips.values())):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    path = session.config.getoption("--skips-file")
    if path and not hasattr(
        session.config, "workerinput"
    ):  # who shares the tests with others reports
        Path(path).write_text("\n".join(_lines()) + "\n", encoding="utf-8")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("skips and their reasons")
    for line in _lines():
        terminalreporter.line(line, red="NOT AN AGREED" in line)
