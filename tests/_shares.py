"""Long runs in shares: `make test` runs the first share, `make thorough` all of them.

@pytest.mark.parametrize("share", shares(40))
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


def shares(count: int) -> list[Any]:
    """Parameters 0 to count - 1; all but the first are for `make thorough` alone."""
    return sampled(range(count), lambda number: number == 0)


def sampled(values: Iterable[T], is_in_sample: Callable[[T], bool]) -> list[Any]:
    """These values as parameters; what is not in the sample is for `make thorough` alone."""
    return [pytest.param(value, marks=pytest.mark.share(is_in_sample(value))) for value in values]


def in_turns(turns: Sequence[Any], *choices: Iterable[Any]) -> list[Any]:
    """Each combination of the choices with each of the turns; in `make test` with one, in turns."""
    return [
        pytest.param(*chosen, turn, marks=pytest.mark.share(place % len(turns) == number))
        for place, chosen in enumerate(itertools.product(*choices))
        for number, turn in enumerate(turns)
    ]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="run all shares of long runs")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--thorough"):
        return
    left = [item for item in items if not _is_in_sample(item)]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if _is_in_sample(item)]


def _is_in_sample(item: pytest.Item) -> bool:
    mark = item.get_closest_marker("share")
    return mark is None or bool(mark.args[0])
