"""Draw what `scaling` measured: a panel for each series, with measured times and those that the work would take."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

MEASURED, WORK, INK = "#0b5fa5", "#b04a2f", "#333333"


class Point(Protocol):
    """Describe what is drawn, see `scaling.Point`."""

    series: str
    value: float
    seconds: float
    quartiles: tuple[float, float]
    work: float


def draw(points: Sequence[Point], title: str, path: Path) -> None:
    """Draw all series and write the picture."""
    series = list(dict.fromkeys(point.series for point in points))
    columns = min(4, len(series))
    rows = -(-len(series) // columns)
    with mpl.rc_context({"font.size": 9, "axes.edgecolor": "#999999", "text.color": INK, "axes.labelcolor": INK}):
        figure = Figure(figsize=(3.1 * columns, 2.7 * rows + 0.7), layout="constrained")
        for place, name in enumerate(series, start=1):
            panel(figure.add_subplot(rows, columns, place), name, [point for point in points if point.series == name])
        figure.suptitle(f"Cost against work\n{title}", fontsize=8, ha="center")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        figure.savefig(path, dpi=110)


def panel(axes: mpl.axes.Axes, name: str, points: Sequence[Point]) -> None:
    """Draw one series on two logarithmic axes."""
    kind, _, against = name.partition(", ")
    values, seconds = [point.value for point in points], [point.seconds for point in points]
    spread = [
        [point.seconds - point.quartiles[0] for point in points],
        [point.quartiles[1] - point.seconds for point in points],
    ]
    # The ideal times have the rate of the point with the most work.
    largest = max(points, key=lambda point: point.work)
    ideal = [largest.seconds * point.work / largest.work for point in points]
    axes.plot(values, ideal, "--", color=WORK, lw=1.2, label="the work alone, at the rate of the largest")
    axes.errorbar(values, seconds, yerr=spread, fmt="o-", color=MEASURED, ms=4, lw=1.6, capsize=2, label="measured")
    for value, second in zip(values, seconds, strict=True):
        axes.annotate(
            readable(second),
            (value, second),
            textcoords="offset points",
            xytext=(-3, 7),
            ha="center",
            size=8,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
        )
    axes.set(xscale="log", yscale="log", title=f"{kind} against {against}" if kind != "checkpoint" else name)
    axes.set_xlabel("parameters" if kind == "checkpoint" else against)
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: counted(value)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: readable(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.22, y=0.25)
    axes.grid(axis="y", which="both", color="#eeeeee")
    axes.spines[["top", "right"]].set_visible(False)


def readable(seconds: float) -> str:
    """Return a time in seconds or milliseconds."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def counted(value: float) -> str:
    """Return a number with at most three digits."""
    return f"{value / 1e6:.3g} M" if value >= 1e6 else f"{value:g}"
