"""`run_seeded`: one seed, one schedule, on a clock that costs nothing.

trio shuffles the tasks that are ready; here they are put in the order of their birth first and then
shuffled by the seed, so the same program takes the same turns in every process. The two names of
trio's that this needs are private, and used in this file alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import Any, Final, NoReturn, TypeVar

import trio
from trio._core import _run as trio_scheduler

T = TypeVar("T")

WEEK_S: Final = 7 * 86400.0
CLEANUP_S: Final = 3600.0  # virtual, for a run that was cancelled because it would not end
FRAMES_SHOWN: Final = 6


class StuckError(AssertionError):
    """The run did not end in its virtual time. Tells who waited, and where."""


def run_seeded(
    seed: int,
    main: Callable[[Random], Awaitable[T]],
    *,
    virtual_s_max: float = WEEK_S,
    instruments: tuple[trio.abc.Instrument, ...] = (),
) -> T:
    """Run `main(Random(seed))` on trio, in virtual time, in an order that the seed alone decides.

    The clock jumps to the next deadline whenever all tasks wait, so hours pass in milliseconds.
    What waits for a real thread, process or file has no place in here: use transport "memory" and
    async tools (sync tools do run, but in a thread, and when that is ready is no seed's to say).

    Args:
        seed: another one, another order; the same one, the same order, in any process.
        main: draws whatever else it wants to be random from what it is given.
        virtual_s_max: the run has to end by then.
        instruments: trio's, to watch it.

    Returns: what `main` returned.

    Raises: what `main` raised, with a note that tells the seed; StuckError: it did not end, and what
        waits in there has been broken up, shields or not.
    """
    from trio.testing import MockClock  # it loads pytest where that is installed

    scheduler: Any = trio_scheduler
    before = scheduler._r.getstate(), scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True
    scheduler._r.seed(seed)
    try:
        return trio.run(
            _bounded,
            main,
            Random(seed),  # noqa: S311 - that it can be foretold is what it is for
            virtual_s_max,
            clock=MockClock(autojump_threshold=0),
            instruments=instruments,
        )
    except BaseException as error:
        error.add_note(f"in run_seeded with seed {seed}")
        raise
    finally:
        scheduler._r.setstate(before[0])
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before[1]


async def _bounded(
    main: Callable[[Random], Awaitable[T]], random: Random, virtual_s_max: float
) -> T:
    watch = _Watch(trio.lowlevel.current_task(), virtual_s_max)
    trio.lowlevel.spawn_system_task(watch.run)
    try:
        with watch.scope:
            value = await main(random)
    except BaseException as error:
        if watch.who_waited:
            raise StuckError(watch.who_waited) from error
        raise
    if watch.scope.cancelled_caught:
        raise StuckError(f"the run had not ended after {virtual_s_max:g} virtual seconds")
    return value


class _Watch:
    """Cancels a run that does not end, and breaks up what no cancellation reaches."""

    def __init__(self, main: trio.lowlevel.Task, virtual_s_max: float) -> None:
        self._main, self._virtual_s_max = main, virtual_s_max
        # A deadline of its own would be the ambient deadline of all that runs in there.
        self.scope = trio.CancelScope()
        self.who_waited = ""

    async def run(self) -> None:
        await trio.sleep(self._virtual_s_max)
        self.scope.cancel()
        await trio.sleep(CLEANUP_S)
        stuck = list(_tree(self._main))
        problem = f"cancelled after {self._virtual_s_max:g} virtual seconds, these still wait:"
        self.who_waited = "\n  ".join([problem, *map(_where, stuck)])
        # The innermost first; one may have been woken by what became of another.
        for task in reversed(stuck):
            if task._abort_func is not None:
                task._attempt_abort(_break_out)


def _break_out() -> NoReturn:
    raise StuckError("it waited for ever")


def _tree(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    yield task
    for nursery in task.child_nurseries:
        for child in sorted(nursery.child_tasks, key=lambda child: child._counter):
            yield from _tree(child)


def _where(task: trio.lowlevel.Task) -> str:
    frames = [
        f"{frame.f_code.co_qualname} ({frame.f_code.co_filename.rpartition('/')[2]}:{line})"
        for frame, line in task.iter_await_frames()
        if not frame.f_globals.get("__name__", "").startswith(("trio.", "anyio."))
    ]
    return f"{task.name}: {' > '.join(frames[-FRAMES_SHOWN:])}"
