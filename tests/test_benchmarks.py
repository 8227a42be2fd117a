"""The harness of `make bench` does its sums right, and runs; how fast anything is, no test asks."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from benchmarks import _array_scenarios, _floor, _gate_list, _grpc_scenarios, _report
from benchmarks.__main__ import exit_status
from benchmarks._contenders import DEFAULT, EVERYONE, NOT_PIPELINED, SHARED
from benchmarks._patience import LONG_S, Patience
from benchmarks._results import Results, Table
from benchmarks._rounds import FailedError, Summary, play, ratios
from benchmarks._scenarios import SCENARIOS

ROOT = Path(__file__).parents[1]
TRANSPORTS = ("shm", "grpc")
RUN_S_MAX = 240  # a run starts two dozen processes and more
PEERS = ("anyio.to_process", "trio-parallel", "multiprocessing.Pool")


def some_results() -> Results:
    roundtrip = {
        "floor": [1e-5, 2e-5, 1e-5],
        DEFAULT: [1.5e-5, 4e-5, 3e-5],
        "anyio.to_process": [3e-5, 5e-5, 5e-5],
    }
    throughput = {
        DEFAULT: [1e-5, 1e-5, 2e-5],
        NOT_PIPELINED.name: [2e-5, 2e-5, 4e-5],
        **{name: [n * 1e-5] * 3 for n, name in enumerate(PEERS, start=2)},
    }
    idle = {"an idle worker": [8.25]}
    return Results(
        3,
        {"processor": "a machine"},
        {
            "roundtrip": Table("roundtrip", "Round trip", "s", roundtrip, "floor"),
            "throughput": Table("throughput", "Throughput", "s", throughput, DEFAULT),
            "memory": Table("memory", "Memory", "MiB", idle, None, {"snakepit shm": "not yet"}),
        },
    )


def test_everybody_has_as_many_turns_and_nobody_always_begins() -> None:
    order = []

    def turn(name, figures):
        def take():
            order.append(name)
            return next(figures)

        return take

    turns = {"a": turn("a", count(1.0)), "b": turn("b", count(10.0, 10.0))}
    rows = play(turns, rounds=2, turns_each=3, failed={})
    assert rows == {"a": [2.0, 5.0], "b": [20.0, 50.0]}  # the medians of three turns
    assert "".join(order) == "abbaabbaabba"


def test_who_fails_is_named_and_the_others_go_on() -> None:
    def fails():
        raise FailedError("it broke")

    failed = {}
    rows = play({"a": fails, "b": lambda: 1.0}, rounds=2, turns_each=2, failed=failed)
    assert (rows, failed) == ({"b": [1.0, 1.0]}, {"a": "it broke"})
    assert play({}, rounds=7, turns_each=3, failed={}) == {}


def test_a_turn_that_was_disturbed_is_taken_again_and_the_least_disturbed_one_counts() -> None:
    now, stolen = 0.0, 0.0

    def turns(*each: tuple[float, float, str]) -> Callable[[], str]:
        left = iter(each)

        def turn() -> str:
            nonlocal now, stolen
            took, lost, figure = next(left)
            now, stolen = now + took, stolen + lost
            return figure

        return turn

    patience = Patience(lambda: stolen, lambda: now, cpus=2)
    assert patience.take(turns((1, 0.1, "let alone"))) == "let alone"
    assert patience.take(turns((1, 0.2, "lost some"), (1, 0.0, "let alone"))) == "let alone"
    assert (patience.turns, patience.again) == (2, 1)
    tries = [(1.0, lost, f"lost {lost}") for lost in (0.8, 0.5, 0.3, 0.4, 0.5)]
    assert patience.take(turns(*tries, (1, 0.0, "once too often"))) == "lost 0.3"
    assert patience.take(turns((LONG_S + 1, 3.0, "a long one"))) == "a long one"
    assert str(patience) == "5 disturbed turns were taken again, 4 counted"


def test_a_ratio_is_taken_within_its_round_and_to_the_best_of_the_others() -> None:
    assert ratios([2.0, 3.0], [1.0, 3.0], [4.0, 1.0]) == [2.0, 3.0]
    assert Summary.of([3.0, 1.0, 2.0]) == Summary(1.0, 2.0, 3.0)


def test_gates_judge_what_was_measured_and_nothing_else() -> None:
    verdicts = {
        (verdict.gate.text, verdict.gate.goal): verdict
        for verdict in _report.verdicts(some_results())
    }
    over_floor = verdicts["no-op round trip over the floor", False]
    assert (over_floor.figure, over_floor.reached) == (Summary(1.5, 2.0, 3.0), True)
    assert not verdicts["no-op round trip over the floor", True].reached
    faster = verdicts["the same with pipelining off", False]
    assert (faster.figure.median, faster.reached) == (1.0, False)
    assert verdicts["no-op throughput", True].figure.median == pytest.approx(100_000)
    assert verdicts["USS of an idle worker, bare adapter", False].reached
    assert len(verdicts) == 7


def test_each_gate_asks_for_rows_that_some_scenario_makes() -> None:
    """A renamed row would silence its gate for ever."""
    rows = {
        "roundtrip": ("floor", *EVERYONE),
        "throughput": tuple(EVERYONE),
        "floats": tuple(EVERYONE),
        "dict": tuple(EVERYONE),
        "shm": (
            *(
                f"{what}, {_array_scenarios.TABLE_MIB} MiB"
                for what in ("table of 1,000 columns", "one copy of each column")
            ),
            *(
                f"{what}, {mib} MiB"
                for what in (
                    "segment to a worker",
                    "segment from a worker",
                    "segment there and back",
                    "heap there and back",
                    "one copy",
                )
                for mib in _array_scenarios.ARRAY_MIB
            ),
        ),
        "shmcalls": tuple(
            text.format(name)
            for text in (_array_scenarios.CALL, _array_scenarios.LOAD)
            for name in (DEFAULT, SHARED)
        ),
        "stall": ("while it is sent",),
        "grpc": _grpc_scenarios.NAMES,
        "grpcload": _grpc_scenarios.NAMES,
        "startup": tuple(EVERYONE),
        "longcall": ("the longest short call",),
        "stream": (f"{DEFAULT}, a call", f"{DEFAULT}, a chunk"),
        "hostcall": (f"{DEFAULT}, a no-op", f"{DEFAULT}, a host call"),
        "waiting": ("10 callers", "10,000 callers"),
        "sessions": ("10 sessions", "10,000 sessions"),
        "workers": ("10 workers", "1,000 workers"),
        "memory": (
            "an idle worker",
            "growth of the host from 100,000 calls to 1,000,000",
            "growth of the worker from 100,000 calls to 1,000,000",
        ),
    }
    tables = {
        name: Table(name, name, "s", {row: [1.0] for row in found}) for name, found in rows.items()
    }
    assert len(_report.verdicts(Results(1, {}, tables))) == len(_gate_list.GATES)


def test_figures_are_written_with_fitting_units() -> None:
    written = [_report.figure(*of) for of in ((2.5, "s"), (0.0123, "s"), (1.5e-5, "s"))]
    assert written == ["2.5 s", "12.3 ms", "15 µs"]
    assert _report.figure(61_234.5, "calls/s") == "61,234 calls/s"
    assert _report.figure(0.123, "MiB") == "0.123 MiB"
    assert _report.spread(Summary(1.0, 2.0, 3.0), "x") == "2.00 (1.00 to 3.00)"
    assert _report.spread(Summary(8.0, 8.0, 8.0), "MiB") == "8 MiB"


def test_the_terminal_shows_medians_ratios_and_who_is_missing() -> None:
    tables = some_results().tables
    lines = _report.table_text(tables["roundtrip"]).splitlines()
    assert lines[0] == "Round trip"
    assert lines[3].split() == ["snakepit", "stdio", "30", "µs", "2.00", "(1.50", "to", "3.00)"]
    assert "left out: snakepit shm: not yet" in _report.table_text(tables["memory"])


def test_results_survive_json() -> None:
    results = some_results()
    assert Results.from_data(json.loads(json.dumps(results.as_data()))) == results


def test_the_page_keeps_what_people_wrote() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    part = _report.page_part(some_results(), "images/benchmarks.svg", "images/arrays.svg")
    new = _report.rewrite(page, part)
    assert new.partition(_report.BEGIN)[0] == page.partition(_report.BEGIN)[0]
    assert new.partition(_report.END)[2] == page.partition(_report.END)[2]
    assert "| anyio.to_process | 50 µs | 3.00 (2.50 to 5.00) |" in new
    assert _report.rewrite(new, part) == new
    with pytest.raises(ValueError, match="markers"):
        _report.rewrite("a page", part)


DRAW = """
import json, sys
from pathlib import Path
from benchmarks._plot import draw, draw_arrays
from benchmarks._results import Results
results = Results.from_data(json.loads(Path(sys.argv[1]).read_text()))
for file in sys.argv[2:]:
    draw(results, Path(file + ".svg"))
    assert draw_arrays(results, Path(file + "-arrays.svg"))
results.tables.clear()
assert not draw_arrays(results, Path("nowhere.svg"))
"""


@pytest.mark.timeout(120)
def test_the_same_figures_draw_the_same_plot(tmp_path: Path) -> None:
    """In a process of its own: matplotlib keeps font files open."""
    file, *plots = (tmp_path / name for name in ("results.json", "a", "b"))
    results = some_results()
    for size in ("1 KiB", "1 GiB"):
        rows = {SHARED: [1e-4, 2e-4], f"{SHARED}, {_array_scenarios.IN_PLACE}": [1e-4, 1e-4]}
        table = Table(_array_scenarios.ARRAY_TABLE.format(size), size, "s", rows)
        results.tables[table.name] = table
    file.write_text(json.dumps(results.as_data()), encoding="utf-8")
    argv = [sys.executable, "-c", DRAW, str(file), *map(str, plots)]
    drawn = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if "No module named 'matplotlib'" in drawn.stderr:
        return  # it comes with the extra `bench` alone
    assert drawn.returncode == 0, drawn.stderr
    for kind, said in ((".svg", "anyio.to_process"), ("-arrays.svg", _array_scenarios.IN_PLACE)):
        first, second = (Path(f"{plot}{kind}").read_text(encoding="utf-8") for plot in plots)
        assert first == second
        assert said in first


def test_the_floor_moves_the_bytes_of_a_call_and_its_result() -> None:
    call_bytes, result_bytes = _floor.frame_bytes()
    assert 20 <= call_bytes <= 40
    assert 10 <= result_bytes <= 20


def bench(json_file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", "--json", str(json_file), *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=RUN_S_MAX,
        check=False,
    )


def short_run(tmp_path: Path, *scenarios: str) -> tuple[Results, str]:
    """Scenarios as short as can be; no peers, which need not be installed here."""
    file = tmp_path / "results.json"
    result = bench(
        file,
        *("--contenders=snakepit", "--rounds=1", "--scale=0.005", f"--only={','.join(scenarios)}"),
    )
    assert result.returncode == 0, result.stdout + result.stderr
    results = Results.from_data(json.loads(file.read_text(encoding="utf-8")))
    assert not results.failures()
    for table in results.tables.values():
        assert all(len(figures) in {1, 2} for figures in table.rows.values())
    return results, result.stdout


@pytest.mark.timeout(RUN_S_MAX + 10)
def test_the_harness_runs(tmp_path: Path) -> None:
    """Each scenario but those of one transport."""
    results, told = short_run(tmp_path, *(name for name in SCENARIOS if name not in TRANSPORTS))
    assert {"floor", "floor on trio", DEFAULT} < set(results.tables["roundtrip"].rows)
    assert NOT_PIPELINED.name in results.tables["throughput"].rows
    assert set(results.tables["stream"].rows) == {f"{DEFAULT}, a call", f"{DEFAULT}, a chunk"}
    assert {f"{DEFAULT}, a no-op", f"{DEFAULT}, a host call"} < set(results.tables["hostcall"].rows)
    assert set(results.tables["waiting"].rows) == {"10 callers", "10,000 callers"}
    assert set(results.tables["sessions"].rows) == {"10 sessions", "10,000 sessions"}
    assert len(results.tables["memory"].rows) == 3
    assert "no-op round trip over the floor" in told


@pytest.mark.timeout(RUN_S_MAX + 10)
def test_the_scenarios_of_one_transport_run(tmp_path: Path) -> None:
    results, told = short_run(tmp_path, *TRANSPORTS)
    assert len(results.tables["shmcalls"].rows) == 4
    assert len(results.tables["shm"].rows) == 17
    assert len(results.tables["stall"].rows) == 5
    by_size = [table for name, table in results.tables.items() if name.startswith("array ")]
    assert [set(table.rows) for table in by_size] == [
        {SHARED, f"{SHARED}, {_array_scenarios.IN_PLACE}", DEFAULT}
    ] * len(_array_scenarios.SIZES)
    assert set(results.tables["grpcload"].rows) == {"snakepit grpc", "snakepit grpc on asyncio"}
    assert "256 MiB in shared memory there and back over 1 MiB" in told


def test_what_makes_no_sense_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    for arguments in (["--only=nonsense"], ["--rounds=0"], ["--update", "--only=roundtrip"]):
        assert bench(file, *arguments).returncode == 2
    assert not file.exists()


def test_only_what_did_not_work_fails_a_run_unless_it_is_strict() -> None:
    results = some_results()
    assert exit_status(results, strict=False) == 0
    assert exit_status(results, strict=True) == 1  # a gate was missed
    del results.tables["throughput"]
    assert exit_status(results, strict=True) == 0  # a goal was
    results.tables["memory"].failed["snakepit stdio"] = "it broke"
    assert exit_status(results, strict=False) == 1
    assert results.failures() == {"Memory: snakepit stdio": "it broke"}
