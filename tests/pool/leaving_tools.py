"""Tools that meet their cancellation at their return, outside of their own code, or in their own way."""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters import BEAT_S, FOREVER_S, log_line, touch

from snakepit import Adapter, ToolCancelled, context, tool

GRACE_S = 5.0
SLOW_MODULE = (
    "from adapters import touch, FOREVER_S; import time; touch({sign!r}); time.sleep(FOREVER_S)"
)


class Edge(Adapter):
    """Tells how often its tool has been interrupted, and how often it has returned."""

    def __init__(self) -> None:
        self.ends: Counter[str] = Counter()

    @tool
    def echo(self, value: int, seconds: float) -> tuple[int, int]:
        """After a while, in which an interrupt of the call before it would hit."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        return value, self.ends["interrupted"]

    @tool
    def spin(self, seconds: float) -> str:
        try:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                pass
        except ToolCancelled:
            self.ends["interrupted"] += 1
            raise
        self.ends["returned"] += 1
        return "spun"

    @tool
    def how(self) -> dict[str, int]:
        return dict(self.ends)


class Willing(Adapter):
    @tool(on_cancel="kill")
    def beat(self, log: str) -> Iterator[int]:
        for number in range(10**6):
            log_line(log, number)
            yield number
            time.sleep(BEAT_S)

    @tool(on_cancel="cooperative", cancel_grace=GRACE_S)
    async def go_on(self, log: str) -> None:
        """Block the loop for as long as another async tool would be let to."""
        log_line(log, "began")
        while not context().cancelled:
            time.sleep(BEAT_S)
        time.sleep(GRACE_S * 0.55)
        log_line(log, "went on")
        await asyncio.sleep(FOREVER_S)

    @tool(cancel_grace=GRACE_S)
    async def block(self, started: str) -> None:
        """Its loop cannot cancel it."""
        touch(started)
        time.sleep(FOREVER_S)

    @tool
    async def echo(self, value: int) -> int:
        return value


@dataclass
class SlowToMake:
    sign: str

    def __post_init__(self) -> None:
        touch(self.sign)
        time.sleep(FOREVER_S)


@dataclass
class SlowToShow:
    sign: str

    def __getattribute__(self, name: str) -> Any:
        if name == "sign":
            touch(super().__getattribute__(name))
            time.sleep(FOREVER_S)
        return super().__getattribute__(name)


class Elsewhere(Adapter):
    """Stuck where an interrupt is held back, or where somebody else swallows it."""

    @tool
    def make(self, slow: SlowToMake) -> None: ...

    @tool
    def show(self, sign: str) -> SlowToShow:
        return SlowToShow(sign)

    @tool
    def load(self, sign: str) -> None:
        folder = Path(sign).parent
        (folder / "slow_module.py").write_text(SLOW_MODULE.format(sign=sign), encoding="utf-8")
        sys.path.insert(0, str(folder))
        importlib.import_module("slow_module")

    @tool
    def run_a_loop(self, sign: str) -> None:
        """One that is always busy: what a callback raises, asyncio logs and goes on."""

        async def main() -> None:
            loop = asyncio.get_running_loop()

            def again() -> None:
                loop.call_soon(again)
                time.sleep(0.002)

            again()
            touch(sign)
            await asyncio.sleep(FOREVER_S)

        asyncio.run(main())

    @tool
    def echo(self, value: int) -> int:
        return value
