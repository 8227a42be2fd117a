"""`make compare`: each mishap with each contender, a table of it, and whether ours reads as promised."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeAlias

from compare import _table
from compare._contenders import EVERYONE
from compare._results import FAILED, Results
from compare._scenarios import ENDED_S_MAX, SCENARIOS, Facts
from compare._trial import TRIAL_S_MAX

ROOT: Final = Path(__file__).parents[1]
README: Final = ROOT / "README.md"
PAGE: Final = ROOT / "docs" / "compare.md"
CLEANING_S_MAX: Final = 30.0

Trial: TypeAlias = Callable[[str, str, Path], Facts]  # of a scenario with a contender
Part: TypeAlias = Callable[[Results], str]  # the generated part of a page


def main() -> int:
    """Compare and tell. Non-zero if a row of ours does not read as it has to, or a trial failed."""
    return compare(_options(), _trial, {README: _table.for_readme, PAGE: _table.for_page})


def compare(options: argparse.Namespace, trial: Trial, pages: Mapping[Path, Part]) -> int:
    """Have all these trials, say what they tell, and write the pages if that is to be published."""
    started = time.monotonic()
    results = Results.begin()
    options.folder.mkdir(parents=True, exist_ok=True)
    pairs = list(itertools.product(options.only, options.contenders))
    # The long one first: it is the end of the run otherwise.
    pairs.sort(key=lambda pair: pair[0] != "orphans")
    with ThreadPoolExecutor(options.jobs) as pool:
        trials = [pool.submit(trial, *pair, options.folder) for pair in pairs]
        try:
            found = {pair: each.result() for pair, each in zip(pairs, trials, strict=True)}
        finally:
            pool.shutdown(cancel_futures=True)
    for contender, scenario in itertools.product(EVERYONE, SCENARIOS):
        if (scenario, contender) in found:
            results.add(contender, scenario, found[scenario, contender])
    _tell(results, options.folder)
    if why := results.why_unwritten():
        print(f"no page is rewritten: {why}")
    else:
        _write(results, pages)
    print(f"{time.monotonic() - started:.0f} s; {options.folder}")
    return int(bool(results.problems()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m compare", description=__doc__)
    parser.add_argument("--only", type=_scenarios, default=list(SCENARIOS), metavar="SCENARIO,…")
    parser.add_argument(
        "--contenders",
        type=_contenders,
        default=list(EVERYONE),
        metavar="NAME,…",
        help="only those whose names begin so",
    )
    parser.add_argument("--jobs", type=int, default=(os.cpu_count() or 1) + 1)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "compare")
    return parser.parse_args()


def _scenarios(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(SCENARIOS):
        raise argparse.ArgumentTypeError(f"no such scenario: {', '.join(sorted(unknown))}")
    return names


def _contenders(text: str) -> list[str]:
    names = [name for name in EVERYONE if name.startswith(tuple(text.split(",")))]
    if not names:
        raise argparse.ArgumentTypeError(f"nobody's name begins so: {text}")
    return names


def _trial(scenario: str, contender: str, folder: Path) -> Facts:
    """One trial, in a process of its own; what it and its workers write goes to a file."""
    argv = [sys.executable, "-m", "compare._trial", scenario, contender]
    with open(folder / f"{contender} {scenario}.log", "wb") as log:
        try:
            done = subprocess.run(
                argv,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                timeout=TRIAL_S_MAX + ENDED_S_MAX + CLEANING_S_MAX,
                check=True,
            )
            facts: Facts = json.loads(done.stdout)
        except (subprocess.SubprocessError, ValueError) as error:
            facts = {FAILED: f"{type(error).__name__}: {error}"}
    print(f"{contender}: {scenario}: {json.dumps(facts)[:160]}", flush=True)
    return facts


def _tell(results: Results, folder: Path) -> None:
    data = json.dumps(results.as_data(), indent=1)
    (folder / "results.json").write_text(data + "\n", encoding="utf-8")
    print(f"\n{_table.on_terminal(results)}\n")
    for contender, why in results.missing().items():
        print(f"MISSING: {contender}: {why}")
    print("\n".join(results.verdict()))


def _write(results: Results, pages: Mapping[Path, Part]) -> None:
    for page, part in pages.items():
        text = page.read_text(encoding="utf-8")
        page.write_text(_table.rewrite(text, part(results)), encoding="utf-8")
        print(f"{page.name} rewritten")


if __name__ == "__main__":
    sys.exit(main())
