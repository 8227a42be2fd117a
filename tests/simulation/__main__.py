"""`make simulate`: run after run from one seed on, until told to stop.

python -m tests.simulation --seed 7 --runs 100     seeds 7 to 106
python -m tests.simulation --seed 7 --runs 1       seed 7, with everything that happened in it
"""

from __future__ import annotations

import argparse
import itertools
import logging
import secrets
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from sim_checks import report, simulate_and_check

SEEDS = 2**32


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seed", type=int, help="the first one; a random one if not given")
    parser.add_argument("--runs", type=int, default=0, help="how many; 0: until Ctrl+C")
    options = parser.parse_args()
    if options.runs < 0:
        parser.error("--runs: how many, or 0 for as many as you like")
    seed = secrets.randbelow(SEEDS) if options.seed is None else options.seed
    logging.disable(logging.CRITICAL)  # workers die here by the thousand, and say so
    print(f"seed {seed}", flush=True)
    if options.runs == 1:
        world, problems = simulate_and_check(seed)
        print(world.plan)
        print(report(world, problems, tail=None))
        return bool(problems)
    return run_many(seed, options.runs)


def run_many(first: int, runs: int) -> int:
    endings: Counter[str] = Counter()
    failed: list[int] = []
    began = told = time.monotonic()
    done = 0
    try:
        for seed in itertools.islice(itertools.count(first), runs or None):
            world, problems = simulate_and_check(seed)
            done += 1
            endings.update(outcome.kind for outcome in world.outcomes.values())
            if problems:
                failed.append(seed)
                print(report(world, problems), flush=True)
            if time.monotonic() - told >= 1:
                told = time.monotonic()
                rate = done / (told - began)
                print(f"{done:,} seeds, {len(failed)} failed, {rate:.0f} a second", flush=True)
    except* KeyboardInterrupt:
        print()
    calls = ", ".join(f"{count:,} {kind}" for kind, count in endings.most_common())
    print(f"{done:,} seeds: {sum(endings.values()):,} calls ended: {calls}")
    print(f"failed: {', '.join(map(str, failed)) or 'none'}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
