"""What may take long begins first, so that at the end no process is left alone with one long test."""

from __future__ import annotations

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Those that are given more time than others, by their mark, in front; else the order stays."""
    usual = float(config.getini("timeout"))

    def extra_s(item: pytest.Item) -> float:
        mark = item.get_closest_marker("timeout")
        return max(0.0, mark.args[0] - usual) if mark is not None and mark.args else 0.0

    items.sort(key=extra_s, reverse=True)
