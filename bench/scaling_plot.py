"""Plot the measurements of `scaling`: a panel for each series, with measured times and times in proportion to work."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from electra_jax.reports.charts import Series, log_axis, log_ticks, plot
from electra_jax.reports.figures import PANEL, Look, Panel, draw_figure, look_of, write_figure

MEASURED, WORK = look_of(1), Look("#d55e00", "6 3", "")


class Point(Protocol):
    """Declare the fields of a point that are drawn; see `scaling.Point`."""

    series: str
    value: float
    seconds: float
    quartiles: tuple[float, float]
    work: float


def draw(points: Sequence[Point], title: str, path: Path) -> None:
    """Write the figure as SVG."""
    series = list(dict.fromkeys(point.series for point in points))
    panels = [panel(name, [point for point in points if point.series == name]) for name in series]
    keys = [(WORK, "the work alone, at the rate of the largest"), (MEASURED, "measured, with quartiles")]
    figure = draw_figure(
        panels, keys, columns=4, label=f"cost against work, {title}", title=["Cost against work", title]
    )
    write_figure(path, figure)


def panel(name: str, points: Sequence[Point]) -> Panel:
    """Lay out the panel of one series, with both axes logarithmic."""
    kind, _, against = name.partition(", ")
    # The line of work goes through the point with the most work.
    largest = max(points, key=lambda point: point.work)
    ideal = [(point.value, largest.seconds * point.work / largest.work) for point in points]
    measured = Series(
        "measured",
        "",
        [(point.value, point.seconds) for point in points],
        spread=[point.quartiles for point in points],
        texts=[readable(point.seconds) for point in points],
    )
    times = [time for point in points for time in (point.seconds, *point.quartiles)] + [time for _, time in ideal]
    values = [point.value for point in points]
    chart = plot(
        name,
        [Series("work", "", ideal), measured],
        x=log_axis(values, counted, margin=(max(values) / min(values)) ** 0.15),
        y=log_ticks(min(times), max(times), readable, margin=1.3),
        box=PANEL,
        titles=("parameters" if kind == "checkpoint" else against, "time"),
    )
    title = name if kind == "checkpoint" else f"{kind} against {against}"
    return Panel(title, chart, [WORK, MEASURED], labelled=True)


def readable(seconds: float) -> str:
    """Format a time in seconds or milliseconds."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def counted(value: float) -> str:
    """Format a number; from a million on, in millions with three digits."""
    return f"{value / 1e6:.3g} M" if value >= 1e6 else f"{value:g}"
