"""`make chaos`: round after round of it, with real processes, for so many seconds.

python -m tests.chaos.chaos_rounds --seed 7 --seconds 60     rounds of the seeds 7, 8, 9, ...
python -m tests.chaos.chaos_rounds --seed 9 --seconds 1      the round of seed 9 alone
"""

from __future__ import annotations

import argparse
import gc
import logging
import secrets
import sys
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import _leaks
from chaos_checks import problems
from chaos_draw import draw_plan
from chaos_round import play
from chaos_tally import Tally, counts

SEEDS = 2**32
STRANGERS = "/dev/shm/sem."  # of multiprocessing, which other programs use, and nothing here does


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.chaos_rounds")
    parser.add_argument("--seed", type=int, help="the first one; a random one if not given")
    parser.add_argument("--seconds", type=float, default=60.0, help="no round begins after that")
    options = parser.parse_args()
    seed = secrets.randbelow(SEEDS) if options.seed is None else options.seed
    logging.disable(logging.CRITICAL)  # workers die here all the time, and say so
    _leaks.pytest_configure()  # what a worker leaves behind becomes our child; our own are known
    print(f"seed {seed}: make chaos SEED={seed} SECONDS={options.seconds:g}", flush=True)
    return go_on(seed, options.seconds)


def go_on(seed: int, seconds: float) -> int:
    began = time.monotonic()
    tally = Tally()
    before = _leaks.Snapshot.take()
    while True:
        plan = draw_plan(seed)
        world = play(plan)
        found = [*problems(world), *left_behind(before)]
        tally.add(world, found)
        print(f"seed {seed}: {plan}: {counts(world.endings())}", flush=True)
        for problem in found:
            print(f"  WRONG: {problem}")
        if found:
            print(f"  again: make chaos SEED={seed} SECONDS=1", flush=True)
        del world
        gc.collect()
        tally.note_memory(own_mib())
        seed += 1
        if time.monotonic() - began >= seconds:
            break
    leaks = tally.leaks()
    print(tally.text())
    print(f"failed: {', '.join(map(str, tally.failed)) or 'none'}{'; '.join(['', *leaks])}")
    return int(bool(tally.failed or leaks))


def left_behind(before: _leaks.Snapshot) -> list[str]:
    """Processes, descriptors, threads, names in /dev/shm that were not there before the first round."""
    gc.collect()
    leaks = before.leaks_after_patience()
    found = [f"left behind: {leak}" for leak in leaks if STRANGERS not in leak]
    if found:
        before.kill_new_children()
    return found


def own_mib() -> float:
    return float(psutil.Process().memory_full_info().uss) / 2**20


if __name__ == "__main__":
    sys.exit(main())
