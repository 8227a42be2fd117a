"""The program that something happens to: `python -m compare._host SCENARIO CONTENDER FOLDER`.

It leaves `facts.json` in the folder and waits to be killed: closing is none of the scenarios, and some
would wait for calls that nothing stops; and as long as it lives it can be seen what its pool has named in
shared memory. Nothing is imported here before `main`: workers that
multiprocessing spawns, and anyio's, import this file again.
"""

from __future__ import annotations

import json
import signal
import sys
import traceback
from pathlib import Path
from typing import Any


def main() -> None:
    """Let it happen."""
    scenario, contender, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    try:
        _befall(scenario, contender, folder)
    except ImportError as error:
        _leave(folder, left_out=f"not installed ({error})")
    except BaseException as error:
        _leave(folder, failed="".join(traceback.format_exception(error)))


def _leave(folder: Path, **facts: Any) -> None:
    new = folder / "facts.json.new"
    new.write_text(json.dumps(facts), encoding="utf-8")
    new.rename(folder / "facts.json")
    while True:
        signal.pause()


def _befall(scenario: str, contender: str, folder: Path) -> None:
    import trio

    from compare._contenders import EVERYONE
    from compare._scenarios import SCENARIOS, warm_up

    mishap, who = SCENARIOS[scenario], EVERYONE[contender]

    async def befall() -> None:
        async with who.open(mishap.workers) as run, trio.open_nursery() as nursery:
            await warm_up(run, mishap.workers, folder)
            facts = await mishap.befall(nursery, who, run, folder)
            _leave(folder, stops=who.stops, **facts)

    trio.run(befall)


if __name__ == "__main__":
    main()
