"""Programs that own pools: `run`, from the first line of main to an exit code."""

from snakepit.scripts._run import run as run
