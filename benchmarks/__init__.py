"""Measurements, never tests: contenders take turns in one run, and ratios are what counts."""
