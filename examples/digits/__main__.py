"""Two workers, one classifier, 1,797 scanned digits: `python -m examples.digits`.

Each scene does one thing with the pool and notes what it expected and what it saw. The exit code
is 0 only if all was as expected.
"""

import argparse
import itertools
import logging
import os
import signal
import sys
from collections import Counter
from typing import Any

import numpy as np
import psutil
import trio
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

import snakepit

from .adapter import DigitsAdapter, Images, Labels, load
from .large import ROUNDS, SIZE_MB, send_in_three_ways

WORKERS = 2
BATCH_IMAGES = 16
IN_FLIGHT = 4  # batches on their way at once: two at work, two waiting for a worker
KILL_AFTER_IMAGES = 10 * BATCH_IMAGES
STUCK_FOR_S = 0.5
GOOD_ENOUGH = 0.95
DEMO_MAX_S = 240  # to hang is to fail

IMAGES, LABELS, HELD_OUT = load()
console = Console(highlight=False)


class Report:
    """What was expected and what was seen."""

    def __init__(self, accuracy_min: float, large_mb: int) -> None:
        self.accuracy_min, self.large_mb = accuracy_min, large_mb
        self.labels: Labels = np.empty(0, int)  # what the first run over all the digits said
        self.good = True
        self.table = Table("what", "expected", "seen", "", title="\nWhat was seen")

    def check(self, what: str, expected: object, seen: object, *, ok: bool | None = None) -> None:
        """Note one expectation; without `ok`, what was seen must equal it."""
        ok = expected == seen if ok is None else bool(ok)
        self.good &= ok
        mark = "[green]ok[/]" if ok else "[bold red]WRONG[/]"
        self.table.add_row(what, str(expected), str(seen), mark)


async def classify(
    pool: snakepit.Pool,
    images: Images,
    bar: Progress,
    *,
    idempotent: bool | None = None,
    victim: int | None = None,
) -> tuple[Labels, Counter[int], list[snakepit.WorkerDiedError]]:
    """Classify the images in batches, a few in flight; on the way kill the victim, if any.

    Returns the labels, how many each worker (pid) found, and the deaths that callers saw.
    """
    labels, served, deaths = np.full(len(images), -1), Counter[int](), []
    starts = iter(range(0, len(images), BATCH_IMAGES))

    async def lane() -> None:
        for start in starts:  # all lanes draw from this one iterator
            batch = slice(start, start + BATCH_IMAGES)
            params = {"images": images[batch]}
            answer = None
            while answer is None:
                try:
                    answer = await pool.execute("classify", params, idempotent=idempotent)
                except snakepit.WorkerDiedError as death:
                    deaths.append(death)  # to classify twice does no harm: once more
            labels[batch] = answer["labels"]
            served[answer["pid"]] += len(answer["labels"])
            bar.advance(bar.task_ids[0], len(answer["labels"]))
            if victim is not None and served.total() == KILL_AFTER_IMAGES:
                os.kill(victim, signal.SIGSTOP)  # frozen, it is sure to hold an unfinished batch
                await trio.sleep(0.1)
                os.kill(victim, signal.SIGKILL)

    async with trio.open_nursery() as nursery:
        for _ in range(IN_FLIGHT):
            nursery.start_soon(lane)
    return labels, served, deaths


async def models(pool: snakepit.Pool) -> dict[int, dict[str, Any]]:
    """Ask all workers at once which model they hold; by pid."""
    found = {}

    async def ask() -> None:
        info = await pool.execute("model_info")
        found[info["pid"]] = info

    async with trio.open_nursery() as nursery:
        for _ in range(WORKERS):
            nursery.start_soon(ask)
    return found


async def scene_classify(pool: snakepit.Pool, report: Report) -> None:
    """All the digits go through the pool, in batches."""
    with progress_bar() as bar:
        report.labels, served, _ = await classify(pool, IMAGES, bar)
    accuracy = (report.labels == LABELS)[HELD_OUT].mean()
    for pid, count in served.items():
        say(f"worker {pid} classified {count} digits")
    say(f"right: {accuracy:.1%} of the {HELD_OUT.sum()} digits that the model never learned from")
    least = report.accuracy_min
    report.check("digits classified", len(IMAGES), served.total())
    report.check("workers that took part", WORKERS, len(served))
    report.check("held-out accuracy", f">= {least:.1%}", f"{accuracy:.1%}", ok=accuracy >= least)


async def scene_stream(pool: snakepit.Pool, report: Report) -> None:
    """A second model trains, epoch by epoch."""
    seen = []
    async with pool.stream("train_network", {"epochs": 100}) as epochs:
        async for epoch in epochs:
            seen.append(epoch)
            say("epoch {epoch:2d}   loss {loss:.3f}   accuracy {accuracy:.1%}".format(**epoch))
            if epoch["accuracy"] >= GOOD_ENOUGH:
                break
    say("good enough: the stream is left, its tool stopped, the worker free again")
    falls = all(one["loss"] > after["loss"] for one, after in itertools.pairwise(seen))
    accuracy, least = seen[-1]["accuracy"], f">= {GOOD_ENOUGH:.1%}"
    report.check("loss from epoch to epoch", "falls", "falls" if falls else "does not fall")
    report.check("second model's accuracy", least, f"{accuracy:.1%}", ok=accuracy >= GOOD_ENOUGH)
    report.check("busy after the stream", 0, pool.stats().busy)


async def scene_cancel(pool: snakepit.Pool, report: Report) -> None:
    """A call is stuck in time.sleep, and is cancelled."""
    before = await models(pool)
    with trio.move_on_after(STUCK_FOR_S) as scope:
        await pool.execute("get_stuck")
    took = trio.current_time() - scope.deadline
    after = await models(pool)
    say(f"cancelled after {STUCK_FOR_S} s; {took * 1000:.1f} ms later the tool had stopped")
    for pid, info in after.items():
        was_stuck = " (this one was stuck)" if info["interrupted"] else ""
        say(f"worker {pid} still holds model {info['token']}{was_stuck}")
    same = [pid for pid in after if pid in before and after[pid]["token"] == before[pid]["token"]]
    report.check("stopping it takes", "< 1 s", f"{took * 1000:.1f} ms", ok=took < 1)
    report.check("calls interrupted", 1, sum(info["interrupted"] for info in after.values()))
    report.check("workers with the same model", WORKERS, len(same))


async def scene_session(pool: snakepit.Pool, report: Report) -> None:
    """A worker asks about unclear digits, and keeps the answers for a session."""
    images, truth = IMAGES[HELD_OUT], LABELS[HELD_OUT]
    guesses: list[int] = []  # one for each question

    def which_digit(image: Images, guess: int) -> int:
        """What the worker calls. It runs here: the user knows all the digits by sight."""
        guesses.append(guess)
        return int(LABELS[(image == IMAGES).all(axis=1)][0])

    answers, asked = [], []
    for calls in (2, 1):  # the second session is a new one, though of the same name
        async with pool.session("user_42") as session:
            session.host_tool(which_digit)
            for _ in range(calls):
                before = len(guesses)
                answers.append(await session.execute("classify_with_help", {"images": images}))
                asked.append(len(guesses) - before)
    first, again, _ = answers
    unclear = first["unclear"]
    right = truth[unclear]
    say(f"worker {first['pid']} is unsure of {len(unclear)} of {len(images)} digits, and asks")
    say(f"{np.sum(guesses[: asked[0]] != right)} of its guesses were wrong, and are corrected")
    say(f"questions about the same digits, later in this session: {asked[1]}")
    say(f"the block is left, the answers with it; in the next session it asks {asked[2]} times")
    wrong = [int(np.sum(answer["labels"][unclear] != right)) for answer in answers]
    report.check("questions of the worker", "> 0", asked[0], ok=asked[0] > 0)
    report.check("questions, same session", 0, asked[1])
    report.check("questions, next session", asked[0], asked[2])
    report.check("unclear digits labelled wrong", 0, sum(wrong))
    report.check("workers of one session", 1, len({first["pid"], again["pid"]}))


async def scene_kill(pool: snakepit.Pool, report: Report) -> None:
    """Workers are killed in the middle of a batch."""
    half = len(IMAGES) // 2
    first, second = await models(pool)
    with progress_bar() as bar:
        say(f"kill -9 {first}, under a call that must not run twice; its caller gets:")
        labels, _, deaths = await classify(pool, IMAGES[:half], bar, idempotent=False, victim=first)
        for death in deaths:
            fields = ("worker_id", "pid", "signal", "reason", "started")
            shown = ", ".join(f"{name}={getattr(death, name)!r}" for name in fields)
            say(f"WorkerDiedError({shown})")
        say("the caller knows that its batch may be repeated, and calls again")
        await pool.ready()
        (replacement,) = set(await models(pool)) - {second}
        say(f"worker {replacement} has taken the place of {first}")
        say(f"kill -9 {second}, under a call to a tool declared idempotent:")
        more_labels, served, more_deaths = await classify(pool, IMAGES[half:], bar, victim=second)
        say(f"callers that noticed: {len(more_deaths)}; the pool ran the batch again by itself")
    count = served[replacement]
    say(f"worker {replacement} classified {count} of the other {len(more_labels)} digits")
    say(f"the one that takes the place of {second} is still starting when the pool is closed")
    seen = ", ".join(f"{death.pid}: signal {death.signal}" for death in deaths)
    unlike = np.concatenate([labels, more_labels]) != report.labels
    report.check("WorkerDiedError", f"{first}: signal 9", seen)
    report.check("errors, tool idempotent", 0, len(more_deaths))
    report.check("served by the replacement", "> 0", count, ok=count > 0)
    report.check("labels unlike the first run", 0, unlike.sum())
    report.check("workers replaced", 2, pool.stats().restarts)


async def scene_large(_: snakepit.Pool, report: Report) -> None:
    """A large array goes to a worker of its own, in three ways."""
    sent = await send_in_three_ways(IMAGES, report.large_mb)
    size = f"{sent.nbytes / 2**20:.0f} MiB"
    if sent.megabytes < report.large_mb:
        say(f"memory is short here: an array of {size} in place of {report.large_mb} MiB")
    if not sent.shared:
        say(
            "memory cannot be shared with workers on this machine: all of it goes through the pipes"
        )
    for way, seconds in sent.seconds.items():
        say(f"{size} {way:<16}  {seconds * 1000:8.1f} ms to a worker and back")
    report.check("large arrays seen wrong", 0, sent.unlike)
    if sent.shared:
        once = sent.copied["from the heap"] / (ROUNDS * sent.nbytes)
        report.check("bytes copied, in shared memory", 0, sent.copied["in shared memory"])
        report.check("copies of it, from the heap", "1", f"{once:g}")


SCENES = (scene_classify, scene_stream, scene_cancel, scene_session, scene_large, scene_kill)


async def demo(report: Report, scene_count: int) -> None:
    """The scenes, and a look at what is left after them."""
    mark = f"DIGITS_DEMO_{os.getpid()}"  # in the environment of whatever the pool starts
    title("Two workers start; each imports scikit-learn and trains its own classifier.")
    with trio.fail_after(DEMO_MAX_S):
        started_at = trio.current_time()
        async with snakepit.open_pool(DigitsAdapter, size=WORKERS, env={mark: "1"}) as pool:
            await pool.ready()
            say(f"ready after {trio.current_time() - started_at:.1f} s: {pool!r}")
            report.check("processes of the open pool", WORKERS, len(marked(mark)))
            for scene in SCENES[:scene_count]:
                title(scene.__doc__)
                await scene(pool, report)
            title("The pool is closed.")
            closing_at = trio.current_time()
    left = {*psutil.Process().children(recursive=True), *marked(mark)}
    say(f"closed after {trio.current_time() - closing_at:.1f} s; processes left: {len(left)}")
    report.check("processes left", 0, len(left))


def marked(mark: str) -> set[psutil.Process]:
    """The processes with the mark in their environment, whoever their parents are."""
    return {p for p in psutil.process_iter(["environ"]) if mark in (p.info["environ"] or ())}


def progress_bar() -> Progress:
    """For all the digits; on a terminal it moves, in a log it is one line at its end."""
    columns = ("  classifying", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console)
    bar.add_task("", total=len(IMAGES))
    return bar


def title(text: str | None) -> None:
    """Announce a scene."""
    console.print(f"\n[bold]==> {text}[/]")


def say(text: str) -> None:
    """Tell one thing of a scene."""
    console.print("  " + text, markup=False, soft_wrap=True)


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.digits", description=__doc__)
    told = "what the classifier must reach on held-out digits (default: %(default)s)"
    parser.add_argument("--expect-accuracy", type=float, default=0.97, metavar="X", help=told)
    told = "do only the first N scenes (default: %(default)s)"
    parser.add_argument("--scenes", type=int, default=len(SCENES), metavar="N", help=told)
    told = "size of the large array (default: %(default)s)"
    parser.add_argument("--large-mb", type=int, default=SIZE_MB, metavar="MIB", help=told)
    options = parser.parse_args()
    report = Report(options.expect_accuracy, options.large_mb)
    log = RichHandler(console=console, show_time=False, show_path=False)
    logging.basicConfig(format="%(message)s", handlers=[log])
    trio.run(demo, report, options.scenes)
    console.print(report.table)
    console.print("All as expected." if report.good else "NOT as expected: see WRONG above.")
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
