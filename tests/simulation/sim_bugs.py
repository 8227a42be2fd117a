"""Bugs that are put in on purpose, and how soon the simulation finds them."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from sim_checks import simulate_and_check
from sim_found import FOUND

SEEDS_MAX = 800

PutIn = Callable[[pytest.MonkeyPatch], None]


def check_found(name: str, put_in: PutIn, patch: pytest.MonkeyPatch, *, says: str = "") -> None:
    """Fail unless one of the first seeds finds the bug, and says so in such words.

    The seed that found it last is tried before them: a run of each would take minutes.
    """
    put_in(patch)
    logging.disable(logging.CRITICAL)
    try:
        for seed in (*FOUND.get(name, ()), *range(SEEDS_MAX)):
            _, problems = simulate_and_check(seed)
            if any(says in problem for problem in problems):
                print(f"{name}: seed {seed}: {problems}")
                return
    finally:
        logging.disable(logging.NOTSET)
    pytest.fail(f"{SEEDS_MAX} seeds did not find it")
