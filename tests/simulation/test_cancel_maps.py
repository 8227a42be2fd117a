"""`pool.map`, cancelled at every checkpoint: its calls have stopped by then, and its input is closed."""

from __future__ import annotations

import pytest
from sim_callers import make_step
from sim_scenes import AFTER, Scene, a_call, a_map, cancel_anywhere, in_turns

from snakepit import Pool

MAPS = {
    "in order": a_map(4),
    "as they come": a_map(4, ordered=False),
    "short calls": a_map(7, seconds=0.0),
    "one at a time": a_map(4, limit=1),
    "a slow reader": a_map(5, limit=2, read_pause_s=0.3),
    "an error": a_map(5, "raise"),
    "errors as results": a_map(5, "raise", on_error="return", ordered=False),
    "a slow stop": a_map(4, "slow_stop", on_error="return"),
    "a stubborn tool": a_map(3, "stubborn", ordered=False),
    "a death": a_map(4, "crash", on_error="return"),
    "a death, and again": a_map(4, tool="again"),
    "left early": a_map(6, read=2, limit=3, seconds=0.02),
    "never read": a_map(4, read=0),
    "endless": a_map(6, read=3, limit=2, endless=True, ordered=False),
    "an input that waits": a_map(5, waits=True, ordered=False),
    "an endless input that waits": a_map(6, waits=True, read=3, limit=2, endless=True),
    "an input that fails": a_map(4, fails_at=2),
    "an input that fails late": a_map(4, fails_at=4, on_error="return", waits=True),
    "a timeout": a_map(4, timeout=0.05),
    "nothing": a_map(0),
}


@pytest.mark.parametrize(("name", "seed"), in_turns(MAPS))
def test_map(name: str, seed: int) -> None:
    """Wherever it is cut short; and a later call finds a pool that serves."""
    plan = MAPS[name]

    async def use(scene: Scene, pool: Pool) -> None:
        await make_step(scene.world, pool, plan)

    assert cancel_anywhere(lambda: Scene(plan, a_call(AFTER), size=2), use, seed=seed) >= 2
