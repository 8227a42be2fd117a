"""The plots of the documentation: what calls cost, as multiples of snakepit's; arrays by size."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from benchmarks._array_scenarios import ARRAY_TABLE, IN_PLACE, SIZES
from benchmarks._contenders import DEFAULT
from benchmarks._results import Results
from benchmarks._rounds import Summary, ratios

PANELS: Final = {
    "roundtrip": "no-op round trip",
    "throughput": "no-op throughput, time per call",
    "floats": "100,000 floats",
    "dict": "dict of 1,000 keys",
    "startup": "open to first result",
}


def draw(results: Results, path: Path) -> None:
    """Write the plot of calls as SVG. Raises ImportError where matplotlib is not installed."""
    pyplot = _pyplot()
    panels = [name for name in PANELS if results.row(name, DEFAULT)]
    heights = [len(results.tables[name].rows) + 1 for name in panels]
    figure, axes = pyplot.subplots(
        len(panels),
        figsize=(7.5, 0.24 * sum(heights) + 1),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for name, axis in zip(panels, axes[:, 0], strict=True):
        _panel(results, name, axis)
    axes[-1, 0].set_xlabel(f"times the cost of {DEFAULT}; median, lowest and highest of the rounds")
    _save(pyplot, figure, path)


def draw_arrays(results: Results, path: Path) -> bool:
    """Write the plot of arrays by size; False if they were not measured. Raises ImportError."""
    lines: dict[str, list[tuple[int, Summary]]] = {}
    for text, size in SIZES.items():
        table = results.tables.get(ARRAY_TABLE.format(text))
        for row, figures in table.rows.items() if table is not None else ():
            lines.setdefault(row, []).append((size, Summary.of(figures)))
    if not lines:
        return False
    pyplot = _pyplot()
    figure, axis = pyplot.subplots(figsize=(7.5, 4.6), layout="constrained")
    for row, points in lines.items():
        sizes = [size for size, _ in points]
        middles = [summary.median for _, summary in points]
        whiskers = [
            [summary.median - summary.low for _, summary in points],
            [summary.high - summary.median for _, summary in points],
        ]
        ours = row.startswith("snakepit")
        axis.errorbar(
            *(sizes, middles, whiskers),
            label=row,
            linestyle="--" if row.endswith(IN_PLACE) else "-",
            linewidth=1.8 if ours else 1,
            marker="o" if ours else ".",
            markersize=4,
            capsize=2,
        )
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(list(SIZES.values()), list(SIZES))
    axis.set_xlabel("size of the array")
    axis.set_ylabel("seconds there and back; median, lowest and highest")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(visible=True, linewidth=0.3)
    axis.legend(fontsize=7, frameon=False)
    _save(pyplot, figure, path)
    return True


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    # The same figures give the same file.
    mpl.rcParams.update({"svg.hashsalt": "snakepit", "svg.fonttype": "none", "font.size": 9})
    return pyplot


def _save(pyplot: Any, figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _panel(results: Results, table: str, axis: Any) -> None:
    rows = results.tables[table].rows
    names = list(reversed(rows))
    summaries = [Summary.of(ratios(rows[name], rows[DEFAULT])) for name in names]
    middles = [summary.median for summary in summaries]
    whiskers = [
        [summary.median - summary.low for summary in summaries],
        [summary.high - summary.median for summary in summaries],
    ]
    colours = ["#2f6f4f" if name.startswith("snakepit") else "#9aa5b1" for name in names]
    axis.barh(names, middles, xerr=whiskers, color=colours, ecolor="#444444", capsize=2)
    axis.axvline(1, color="#2f6f4f", linewidth=0.8)
    axis.set_title(PANELS[table], loc="left", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
