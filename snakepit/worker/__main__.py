"""`python -m snakepit.worker [ADAPTER]`: one worker process, spoken to over stdin and stdout.

The start of a worker is its imports, so the first step makes these cheap; for that nothing may be
imported before it. What the process does is in `_program.py`.
"""

from __future__ import annotations

import gc
import sys


def main(argv: list[str]) -> int:
    """Serve one host; return the exit code."""
    collects = gc.isenabled()
    gc.disable()  # modules are no garbage: to look through them again and again would be in vain
    _import_msgspec()
    from snakepit.worker._program import run

    gc.freeze()  # never again, that is; at the end of the process, either
    if collects:
        gc.enable()
    return run(argv)


def _import_msgspec() -> None:
    """Without `typing_extensions`, which costs a fifth of a worker's start.

    msgspec looks there first for what `typing` has as well, since Python 3.11, and does not need it.
    """
    name = "typing_extensions"
    if name in sys.modules:
        return
    sys.modules[name] = None  # type: ignore[assignment] # an import of it fails
    try:
        import msgspec  # noqa: F401
    finally:
        del sys.modules[name]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
