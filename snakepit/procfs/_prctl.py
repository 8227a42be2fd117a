"""What a process asks of the kernel about its relatives. Linux; elsewhere nothing happens.

By way of `_ctypes` alone: importing the package around it costs a worker's start 5 ms.
"""

from __future__ import annotations

import sys

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def die_with_parent(number: int) -> bool:
    """Get this signal when the thread that forked us has ended. Did it work?

    One that has ended before is not noticed: check the parent afterwards.
    """
    return _prctl(PR_SET_PDEATHSIG, number)


def adopt_orphans() -> bool:
    """Become the parent of every descendant whose own one ends. Did it work?"""
    return _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> bool:
    if sys.platform != "linux":
        return False
    try:
        import _ctypes

        program = _ctypes.dlopen(None, 0)  # type: ignore[arg-type] # it may be; typeshed differs
        address = _ctypes.dlsym(program, "prctl")
        return bool(_ctypes.call_function(address, (option, value, 0, 0, 0)) == 0)
    except (ImportError, AttributeError, OSError):  # an interpreter built without it
        return False
