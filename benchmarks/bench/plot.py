"""Plots of results, as SVG."""

from pathlib import Path

import matplotlib

matplotlib.use("svg")
# The same picture each time: no date, and ids that do not change.
matplotlib.rcParams["svg.hashsalt"] = "tidemill"
matplotlib.rcParams["font.family"] = "DejaVu Sans"
matplotlib.rcParams["font.size"] = 9

from matplotlib import pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

from .report import geometric_mean  # noqa: E402

# Tidemill's engines in shades of one colour, the peers in others; readable for the colour-blind.
COLOURS = {
    "in-process": "#08519c", "pipelined": "#4292c6", "staged": "#9ecae1",
    "DataFusion": "#fd8d3c", "Sail": "#74c476", "Spark": "#b0b0b0", "DuckDB": "#d6a800",
}  # fmt: skip
INK = "#333333"
PER_ROW = 25


def tidy(axes: Axes) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#999999")
    axes.tick_params(which="both", colors=INK, length=0)
    axes.set_axisbelow(True)


def save(figure: pyplot.Figure, file: Path) -> None:
    figure.savefig(file, metadata={"Date": None}, facecolor="white")
    pyplot.close(figure)


def seconds_label(value: float, _position: int = 0) -> str:
    return f"{value:g} s" if value >= 1 else f"{value * 1e3:g} ms"


def queries(file: Path, title: str, times: dict[str, dict[str, list[float]]]) -> bool:
    """Each query's time on each engine, and the geometric means. `False` if there is nothing to draw."""
    names = [name for name in times if times[name]]
    labels = sorted({query for name in names for query in times[name]})
    if not labels:
        return False
    colours = [COLOURS.get(name.split()[0], "#888888") for name in names]
    strips = -(-len(labels) // PER_ROW)
    per_strip = -(-len(labels) // strips)
    figure = pyplot.figure(figsize=(13, 0.9 + 2.9 * strips + 0.32 * len(names) + 0.7), layout="constrained")
    figure.get_layout_engine().set(hspace=0.05)
    grid = figure.add_gridspec(strips + 1, 1, height_ratios=[2.9] * strips + [0.32 * len(names) + 0.5])
    least = min(min(runs) for name in names for runs in times[name].values())
    most = max(min(runs) for name in names for runs in times[name].values())
    for strip in range(strips):
        axes = figure.add_subplot(grid[strip])
        shown = labels[strip * per_strip : (strip + 1) * per_strip]
        width = 0.84 / len(names)
        for number, (name, colour) in enumerate(zip(names, colours, strict=True)):
            places = [
                (place + (number - (len(names) - 1) / 2) * width, min(times[name][query]))
                for place, query in enumerate(shown)
                if query in times[name]
            ]
            if places:
                axes.bar(
                    *zip(*places, strict=True), width=width * 0.94, color=colour, label=name if strip == 0 else None
                )
        axes.set_yscale("log")
        axes.set_ylim(least * 0.7, most * 1.3)
        axes.yaxis.set_major_formatter(seconds_label)
        axes.set_xticks(range(len(shown)), shown)
        # All strips as wide a query as the first.
        axes.set_xlim(-0.6, per_strip - 0.4)
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.7)
        tidy(axes)
        if strip == 0:
            axes.set_title(f"{title}: time of each query, best of the rounds (log scale)", loc="left", color=INK)
    figure.legend(loc="outside upper center", ncols=len(names), frameon=False, labelcolor=INK)
    means(figure.add_subplot(grid[strips]), names, colours, times)
    save(figure, file)
    return True


def means(axes: Axes, names: list[str], colours: list[str], times: dict[str, dict[str, list[float]]]) -> None:
    shared = [query for query in times[names[0]] if all(query in times[name] for name in names)]
    axes.set_title(f"Geometric mean of the {len(shared)} queries that all of them did", loc="left", color=INK)
    tidy(axes)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    if not shared:
        axes.set_yticks([])
        return
    values = [geometric_mean([min(times[name][query]) for query in shared]) for name in names]
    bars = axes.barh(range(len(names)), values, color=colours, height=0.66)
    labels = [f"{value * 1e3:,.0f} ms · {value / values[0]:.2f}" for value in values]
    axes.bar_label(bars, labels, padding=4, color=INK)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, max(values) * 1.12)
