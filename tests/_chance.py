"""Draws that the simulation and the chaos share."""

from __future__ import annotations

from random import Random
from typing import Any


def weighted(random: Random, choices: dict[Any, int]) -> Any:
    """One of the keys, each as often as its value says."""
    [choice] = random.choices(list(choices), list(choices.values()))
    return choice
