"""`python -m snakepit cleanup`: end what hosts that are gone have left behind."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from snakepit.process import end_orphans


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code, 1 if something would not die."""
    parser = argparse.ArgumentParser(prog="python -m snakepit", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "cleanup",
        help="end the orphans of dead hosts, and print the pid of each process that has ended",
    )
    parser.parse_args(argv)
    done = end_orphans()
    lines = [f"ended {pid}" for pid in done.ended] + [f"would not die: {pid}" for pid in done.left]
    sys.stdout.write("\n".join(lines or ["no orphans"]) + "\n")
    return 1 if done.left else 0


if __name__ == "__main__":
    sys.exit(main())
