"""Measurements, never tests: contenders take turns in one run, and ratios are what counts.

`make bench` runs them; `docs/benchmarks.md` says what is measured, and how. Every contender
lives in a process of its own (`_driver.py`), so that none disturbs another; one conductor
(`_subjects.py`, `_rounds.py`) lets them run one at a time, turn by turn.
"""
