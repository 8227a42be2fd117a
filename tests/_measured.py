"""Coverage measures worker processes in the tests of these folders alone.

A measured worker starts three times as slowly, and the other tests run the same lines of it.
"""

import os
from typing import Final

import pytest

FOLDERS: Final = ("foreign", "process", "worker")

_switches = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_PROC")}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for name, value in _switches.items():
        if item.path.parent.name in FOLDERS:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)
