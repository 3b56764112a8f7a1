"""Lay out charts: the position of every line, mark and tick in the units of an SVG drawing.

The templates charts.html (inside a page, whose style sheet sets the colours) and figure.svg (a separate file) draw
these layouts. A plotting library would bring its own fonts and colours, which do not follow a page's dark theme, and
one to five megabytes of script or a raster image for each page; these charts take a few kilobytes and load nothing.
"""

import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

# Beyond this many points the marks run into each other and hide the line.
_MAX_MARKS = 40
# Beyond this many points a scatter plot is a cloud whatever is left out, and the page grows large.
_MAX_SCATTERED = 2000
# The texts of ticks of a logarithmic axis that are closer than this factor would overlap.
_TICK_FACTOR = 1.35
# The height of a row of a strip chart.
_STRIP = 52


@dataclass(frozen=True)
class Box:
    """The size of a drawing and the margins around its plot."""

    width: float = 360
    height: float = 230
    left: float = 44
    right: float = 12
    top: float = 12
    bottom: float = 28


@dataclass(frozen=True)
class Axis:
    """A scale from `low` to `high`, with the value and the text of each tick."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Return the position of a value on the axis: 0 at `low`, 1 at `high`."""
        scale = math.log if self.logarithmic else float
        return (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes:
        name: its name in hover texts, e.g. "validation".
        style: its CSS class in a page: "train", "validation" (thick, with dots), "failed", "baseline" or "published"
            (dashed); "" in a figure, where panels hold the looks.
        points: (x, value) in drawing order; a value that is not finite leaves a gap.
        spread: the lowest and the highest value at each point, for an error bar; empty for none.
        texts: the text or hover text of each point; empty for points without a mark.
        scattered: further points (x, value, hover text), drawn as small dots.
    """

    name: str
    style: str
    points: Sequence[tuple[float, float]]
    spread: Sequence[tuple[float, float]] = ()
    texts: Sequence[str] = ()
    scattered: Sequence[tuple[float, float, str]] = ()

    @property
    def finite(self) -> list[tuple[float, float]]:
        """The points with a finite value."""
        return [point for point in self.points if math.isfinite(point[1])]


@dataclass(frozen=True)
class Mark:
    """A dot with a hover text, which appears even if the dot is invisible."""

    x: float
    y: float
    text: str
    visible: bool = True


@dataclass(frozen=True)
class Line:
    """A series in the units of the drawing: the path's commands, the marks on and around it, bars (x, top, bottom)."""

    style: str
    path: str
    marks: Sequence[Mark] = ()
    bars: Sequence[tuple[float, float, float]] = ()
    scattered: Sequence[Mark] = ()


@dataclass(frozen=True)
class Tick:
    """A text at a position on an axis."""

    at: float
    text: str
    anchor: str = "middle"


@dataclass(frozen=True)
class Chart:
    """A chart: `label` is for screen readers, `x_title` and `y_title` name the axes ("" for none)."""

    label: str
    box: Box
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    lines: Sequence[Line]
    x_title: str = ""
    y_title: str = ""
    band: tuple[float, float] | None = None


@dataclass(frozen=True)
class Strip:
    """A row of a strip chart: a dot for each value of seeds that worked or failed, and a bar up to the median."""

    name: str
    worked: Sequence[float]
    failed: Sequence[float]
    median: float | None


@dataclass(frozen=True)
class StripDot:
    """A value of a strip in the units of the drawing."""

    x: float
    text: str
    failed: bool


@dataclass(frozen=True)
class StripRow:
    """A strip in the units of the drawing; `end` is None, and there is no bar, if every seed failed."""

    name: str
    value: str
    middle: float
    start: float
    width: float
    end: float | None
    dots: Sequence[StripDot]


@dataclass(frozen=True)
class StripChart:
    """Strips above each other on one axis; `label` is for screen readers."""

    label: str
    box: Box
    ticks: Sequence[Tick]
    rows: Sequence[StripRow]


@dataclass(frozen=True)
class Figure:
    """A chart under its title, with its last value and a note; the chart is None if there is nothing to draw."""

    title: str
    last: str
    note: str
    chart: Chart | None


def line_chart(title: str, series: Sequence[Series], value_text: Callable[[float], str]) -> Chart | None:
    """Lay out a chart of every series against step.

    Args:
        title: the quantity; screen readers read it out together with the last values.
        series: the lines, drawn in order (the last on top). Those without a finite point are left out.
        value_text: formats a value for the hover text and the vertical axis (e.g. 0.25 as "25 %").

    Returns:
        The chart; None if there is nothing to draw.
    """
    drawn = [line for line in series if line.finite]
    if not drawn:
        return None
    points = [point for line in drawn for point in line.finite]
    steps = [x for x, _ in points]
    low, high = min(steps), max(max(steps), min(steps) + 1)
    # Even on a short axis, a tick must be a whole step.
    ticks = [tick for tick in nice_ticks(low, high, 5) if low <= tick <= high and tick == round(tick)]
    x_axis = Axis(low, high, [(tick, short_count(tick)) for tick in ticks])
    y_axis = value_axis([y for _, y in points], value_text)
    last_values = ", ".join(f"{line.name} {value_text(line.finite[-1][1])}" for line in drawn)
    chart = plot(f"{title}; last values: {last_values}", [], x=x_axis, y=y_axis, box=Box())
    return replace(chart, lines=[_step_line(line, chart.box, x_axis, y_axis, value_text) for line in drawn])


def scatter_chart(title: str, points: Sequence[tuple[float, float, str]], *, axes: tuple[str, str]) -> Chart | None:
    """Lay out a chart of predicted values against gold values; on its dashed line they are equal.

    Args:
        title: the quantity, for screen readers.
        points: gold value, predicted value and hover text. If there are many, evenly spaced ones are drawn.
        axes: names of the horizontal and the vertical axis.

    Returns:
        The chart; None if there is nothing to draw.
    """
    drawn = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]
    if not drawn:
        return None
    drawn = drawn[:: -(-len(drawn) // _MAX_SCATTERED)]
    axis = value_axis([value for point in drawn for value in point[:2]], lambda value: f"{value:.2f}")
    box = Box(height=238, bottom=36)
    chart = plot(
        title, [Series("equal", "baseline", [(axis.low, axis.low), (axis.high, axis.high)])], x=axis, y=axis, box=box
    )
    marks = [Mark(_x(box, axis, gold), _y(box, axis, predicted), text) for gold, predicted, text in drawn]
    return replace(chart, lines=[*chart.lines, Line("scattered", "", marks)], x_title=axes[0], y_title=axes[1])


def strip_chart(label: str, strips: Sequence[Strip], value_text: Callable[[float], str]) -> StripChart:
    """Lay out a chart with a bar from zero to the median of each strip, and a dot for each of its values."""
    values = [value for strip in strips for value in (*strip.worked, *strip.failed)]
    ticks = nice_ticks(min(0.0, *values), max(0.0, *values), 5)
    axis = Axis(ticks[0], ticks[-1], [(tick, f"{tick:g}") for tick in ticks])
    box = Box(width=640, height=34 + _STRIP * len(strips), left=150, right=70, top=10, bottom=20)
    rows = []
    for index, strip in enumerate(strips):
        end = None if strip.median is None else _x(box, axis, strip.median)
        zero = _x(box, axis, 0.0)
        start, stop = sorted((zero, zero if end is None else end))
        dots = [StripDot(_x(box, axis, value), value_text(value), failed=False) for value in strip.worked]
        dots += [StripDot(_x(box, axis, value), f"{value_text(value)} (failed)", failed=True) for value in strip.failed]
        text = "" if strip.median is None else value_text(strip.median)
        middle = box.top + _STRIP * (index + 0.5)
        rows.append(StripRow(strip.name, text, middle, start, round(stop - start, 1), end, dots))
    return StripChart(label, box, [Tick(_x(box, axis, value), text) for value, text in axis.ticks], rows)


def plot(
    label: str,
    series: Sequence[Series],
    *,
    x: Axis,
    y: Axis,
    box: Box,
    band: tuple[float, float] | None = None,
    titles: tuple[str, str] = ("", ""),
) -> Chart:
    """Lay out a chart of series on two given axes.

    Args:
        label: the content, for screen readers.
        series: the lines, the last on top; those without a finite point are left out.
        x: the horizontal axis.
        y: the vertical axis.
        box: the size of the drawing.
        band: a range of values to shade; None for none.
        titles: names of the horizontal and the vertical axis.
    """
    return Chart(
        label,
        box,
        x_ticks=[
            Tick(at, text, "end" if at > box.width - 2 * box.right else "middle")
            for at, text in ((_x(box, x, value), text) for value, text in x.ticks)
        ],
        y_ticks=[Tick(_y(box, y, value), text, "end") for value, text in y.ticks],
        lines=[_line(line, box, x, y) for line in series if line.finite],
        x_title=titles[0],
        y_title=titles[1],
        band=None if band is None else (_y(box, y, band[1]), _y(box, y, band[0])),
    )


def value_axis(values: Sequence[float], value_text: Callable[[float], str]) -> Axis:
    """Return a linear axis with round ticks, the first at or below all values and the last at or above them."""
    low, high = min(values), max(values)
    ticks = nice_ticks(low, high, 5)
    # If values are nearly equal, rounding must not give two ticks the same text, nor make their spacing look uneven.
    while not _evenly_spaced(texts := [value_text(tick) for tick in ticks]):
        spacing = ticks[1] - ticks[0]
        low, high = ticks[0] - spacing, ticks[-1] + spacing
        ticks = nice_ticks(low, high, 5)
    return Axis(ticks[0], ticks[-1], list(zip(ticks, tick_texts(texts), strict=True)))


def log_axis(values: Sequence[float], value_text: Callable[[float], str], *, margin: float) -> Axis:
    """Return a logarithmic axis a factor `margin` wider than the values, with a tick at each value that has room."""
    ticks: list[float] = []
    for value in sorted(set(values), reverse=True):
        if not ticks or value * _TICK_FACTOR < ticks[-1]:
            ticks.append(value)
    return Axis(
        min(values) / margin, max(values) * margin, [(tick, value_text(tick)) for tick in ticks], logarithmic=True
    )


def log_ticks(low: float, high: float, value_text: Callable[[float], str], *, margin: float) -> Axis:
    """Return a logarithmic axis a factor `margin` wider than `low` to `high`, with ticks at 1, 2 and 5 of each decade.

    A range of more than a factor 200 has ticks at 1 only.
    """
    low, high = low / margin, high * margin
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    wide = high > 200 * low
    ticks = [digit * 10.0**power for power in decades for digit in ((1,) if wide else (1, 2, 5))]
    return Axis(low, high, [(tick, value_text(tick)) for tick in ticks if low <= tick <= high], logarithmic=True)


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Return round numbers (1, 2, 2.5 or 5 times a power of ten) from at or below `low` to at or above `high`.

    There are about `count` of them. If `low` is not below `high`, the range is widened, so that there are at least two.
    """
    if high <= low:
        pad = abs(low) * 0.1
        low, high = low - pad, high + pad or 1.0
    rough = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    spacing = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / spacing + 1e-9), math.ceil(high / spacing - 1e-9)
    return [index * spacing for index in range(first, last + 1)]


def tick_texts(texts: Sequence[str]) -> list[str]:
    """Remove trailing decimals that are zero in all of the texts: 0.10 and 0.20 become 0.1 and 0.2."""
    pattern = re.compile(r"(.*\.\d*)0(\D*)")
    while all(matches := [pattern.fullmatch(text) for text in texts]):
        texts = [match[1].removesuffix(".") + match[2] for match in matches if match]
    return list(texts)


def short_count(value: float) -> str:
    """Abbreviate a number of steps: 500, 2k, 12.5k, 1M."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{suffix}"
    return f"{value:.4g}"


def _evenly_spaced(texts: Sequence[str]) -> bool:
    numbers = [float(re.sub(r"[^\d.-]", "", text)) for text in texts]
    gaps = {round(after - before, 9) for before, after in itertools.pairwise(numbers)}
    return len(gaps) == 1 and gaps != {0.0}


def _x(box: Box, axis: Axis, value: float) -> float:
    return round(box.left + axis.share(value) * (box.width - box.left - box.right), 1)


def _y(box: Box, axis: Axis, value: float) -> float:
    return round(box.top + (1 - axis.share(value)) * (box.height - box.top - box.bottom), 1)


def _line(line: Series, box: Box, x: Axis, y: Axis) -> Line:
    commands, pen_down = [], False
    for at, value in line.points:
        if math.isfinite(value):
            commands.append(f"{'L' if pen_down else 'M'}{_x(box, x, at):.1f},{_y(box, y, value):.1f}")
        pen_down = math.isfinite(value)
    return Line(
        line.style,
        "".join(commands),
        bars=[
            (_x(box, x, at), _y(box, y, high), _y(box, y, low))
            for (at, _), (low, high) in zip(line.points, line.spread, strict=False)
        ],
        marks=[
            Mark(_x(box, x, at), _y(box, y, value), text)
            for (at, value), text in zip(line.points, line.texts, strict=False)
        ],
        scattered=[Mark(_x(box, x, at), _y(box, y, value), text) for at, value, text in line.scattered],
    )


def _step_line(line: Series, box: Box, x: Axis, y: Axis, value_text: Callable[[float], str]) -> Line:
    """Lay out a line against step; its points have hover texts with the values, unless there are too many."""
    drawn = _line(line, box, x, y)
    alone, few = len(line.finite) == 1, len(line.finite) <= _MAX_MARKS
    if line.style != "validation" and not alone and (line.style in ("baseline", "published") or not few):
        return drawn
    visible = alone or (line.style == "validation" and few)
    marks = [
        Mark(_x(box, x, at), _y(box, y, value), f"{line.name}, step {at:,.0f}: {value_text(value)}", visible)
        for at, value in line.finite
    ]
    return replace(drawn, marks=marks)
