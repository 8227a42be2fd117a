"""What leaves a nursery of ours: callers shall not see that there is one."""

from __future__ import annotations

from typing import NoReturn

import anyio


def raise_lone(group: BaseExceptionGroup[BaseException]) -> NoReturn:
    """Raise the one exception that our own nursery wrapped; keep a true group whole.

    Cancellations do not count beside an exception: whoever is cancelled may end with another one.
    Nor does the second Ctrl+C of two.
    """
    cancelled = anyio.get_cancelled_exc_class()
    errors = [one for one in group.exceptions if not isinstance(one, cancelled)]
    several = len(errors) > 1 and not all(isinstance(one, KeyboardInterrupt) for one in errors)
    if several or len(group.exceptions) == 0:
        raise group
    lone = errors[0] if errors else group.exceptions[0]
    context = lone.__context__
    try:
        raise lone
    finally:
        lone.__context__ = context
        del lone, context, errors
