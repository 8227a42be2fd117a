"""What pools of processes do when things go wrong: the same eight mishaps for each of them.

`make compare` runs them and writes the table of the README and `docs/compare.md`, which says what each column
means. A mishap befalls one contender at a time, in a program of its own (`_host.py`), below a process that looks
on and cleans up (`_trial.py`).
"""
