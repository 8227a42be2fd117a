"""`make bench`: measure this machine, tell how it compares, and what the gates say."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks import _plot, _report
from benchmarks._machine import Onlooker, describe_machine
from benchmarks._plan import ROUNDS, Plan
from benchmarks._results import Results, Table
from benchmarks._scenarios import SCENARIOS, run

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "benchmarks.md"
PLOT: Final = ROOT / "docs" / "images" / "benchmarks.svg"
ARRAYS_PLOT: Final = PLOT.with_name("benchmarks-arrays.svg")


def main() -> int:
    """Measure and tell. Non-zero if something did not work, not for a missed gate."""
    options = _options()
    plan = Plan(options.rounds, options.scale, tuple(options.contenders))
    started = time.monotonic()
    onlooker = Onlooker()
    results = Results(options.rounds, describe_machine())
    print("; ".join(results.machine.values()))
    print(f"{options.rounds} rounds; ratios are medians of per-round ratios\n")
    for name, found in run(options.only, plan):
        if isinstance(found, Table):
            results.tables[found.name] = found
            print(_report.table_text(found), end="\n\n", flush=True)
        else:
            results.failed[name] = str(found)
            print(f"{name} FAILED: {found}\n", flush=True)
    print(_report.verdicts_text(results))
    results.machine["others"] = f"{onlooker.others()}; {plan.patience}"
    _save(results, options.json)
    if options.update:
        _update(results)
    print(f"{time.monotonic() - started:.0f} s; {results.machine['others']}; {options.json}")
    return exit_status(results, strict=options.strict)


def exit_status(results: Results, *, strict: bool) -> int:
    """1 if something did not work; a missed gate counts only if strict, a goal never."""
    missed = [v for v in _report.verdicts(results) if not (v.reached or v.gate.goal)]
    return int(bool(results.failures() or (strict and missed)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        type=_names,
        default=list(SCENARIOS),
        metavar="SCENARIO,…",
        help="some of: " + ", ".join(SCENARIOS),
    )
    parser.add_argument(
        "--contenders",
        type=lambda text: text.split(","),
        default=[],
        metavar="NAME,…",
        help="only those whose names begin so, and the floor",
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--scale", type=float, default=1.0, help="shorten or lengthen each turn")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench" / "results.json")
    parser.add_argument("--update", action="store_true", help="rewrite the figures in docs/")
    parser.add_argument("--strict", action="store_true", help="a missed gate is an error")
    options = parser.parse_args()
    if options.rounds < 1 or options.scale <= 0:
        parser.error("rounds and scale are above 0")
    partial = options.only != list(SCENARIOS) or options.contenders or options.scale < 1
    if options.update and (partial or options.rounds < ROUNDS):
        parser.error(f"the documentation shows a whole run, of at least {ROUNDS} rounds")
    return options


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such scenario: {', '.join(unknown)}")
    return names


def _save(results: Results, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results.as_data(), indent=1, ensure_ascii=False) + "\n")


def _update(results: Results) -> None:
    try:
        _plot.draw(results, PLOT)
        _plot.draw_arrays(results, ARRAYS_PLOT)
    except ImportError as error:
        print(f"the plot was not drawn: {error}")
    plots = (plot.relative_to(PAGE.parent).as_posix() for plot in (PLOT, ARRAYS_PLOT))
    part = _report.page_part(results, *plots)
    PAGE.write_text(_report.rewrite(PAGE.read_text(), part))
    print(f"{PAGE.relative_to(ROOT)} rewritten")


if __name__ == "__main__":
    sys.exit(main())
