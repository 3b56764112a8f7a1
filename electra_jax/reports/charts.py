"""Line charts and scatter plots as inline SVG: themed by the page's CSS, no picture files, no fonts of their own."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 360, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 12, 28
# Beyond this many points the markers run into each other and hide the line.
_MAX_MARKERS = 40
# Beyond this many a scatter plot is a cloud whatever is left out, and the page grows heavy.
_MAX_SCATTERED = 2000


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
      name: what the hover text calls it, e.g. "validation".
      style: its CSS class: "train", "validation" (thick, with dots), "failed", "baseline" or "published" (dashed).
      points: (step, value) in drawing order; a value that is not finite leaves a gap.
    """

    name: str
    style: str
    points: Sequence[tuple[float, float]]

    @property
    def finite(self) -> list[tuple[float, float]]:
        """The points that can be drawn."""
        return [point for point in self.points if math.isfinite(point[1])]


@dataclass(frozen=True)
class _Axes:
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return _LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _TOP + (self.y_high - value) / (self.y_high - self.y_low) * (_HEIGHT - _TOP - _BOTTOM)


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten) from at or below `low` to at or above `high`.

    About `count` of them; `low` == `high` is widened so that there are always at least two.
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
    """The same numbers without the decimals that are zero in all of them: 0.10 and 0.20 become 0.1 and 0.2."""
    pattern = re.compile(r"(.*\.\d*)0(\D*)")
    while all(matches := [pattern.fullmatch(text) for text in texts]):
        texts = [match[1].removesuffix(".") + match[2] for match in matches if match]
    return list(texts)


def short_count(value: float) -> str:
    """A step count in few characters: 500, 2k, 12.5k, 1M."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{suffix}"
    return f"{value:.4g}"


def line_chart(title: str, series: Sequence[Series], *, value_text: Callable[[float], str]) -> str:
    """A chart of every series against step, as one `<svg>` element.

    Args:
      title: what is plotted; read out by screen readers together with the last values.
      series: the lines, drawn in order (the last on top). Those without a finite point are left out.
      value_text: writes a value as in the hover text and on the vertical axis (e.g. 0.25 as "25 %").

    Returns:
      SVG markup without a namespace, to stand inside HTML; a sentence in a `<p>` if there is nothing to draw.
    """
    drawn = [line for line in series if line.finite]
    if not drawn:
        return '<p class="empty">Nothing was recorded for this curve.</p>'
    points = [point for line in drawn for point in line.finite]
    y_ticks = nice_ticks(min(y for _, y in points), max(y for _, y in points), 5)
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    axes = _Axes(x_low, x_high if x_high > x_low else x_low + 1, y_ticks[0], y_ticks[-1])
    last_values = ", ".join(f"{line.name} {value_text(line.finite[-1][1])}" for line in drawn)
    label = escape(f"{title}; last values: {last_values}")
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        + _grid(axes, nice_ticks(axes.x_low, axes.x_high, 5), y_ticks, value_text)
        + "".join(_line(line, axes, value_text) for line in drawn)
        + "</svg>"
    )


def scatter_chart(title: str, points: Sequence[tuple[float, float, str]], *, axes: tuple[str, str]) -> str:
    """Predicted values against gold ones, as one `<svg>` element; on the dashed line they are equal.

    Args:
      title: what is plotted; read out by screen readers.
      points: gold and predicted value, and the hover text. Of many, evenly spaced ones are drawn.
      axes: names of the horizontal and the vertical axis.

    Returns:
      SVG markup as `line_chart`'s; a sentence in a `<p>` if there is nothing to draw.
    """
    drawn = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]
    if not drawn:
        return '<p class="empty">There are no values to draw.</p>'
    drawn = drawn[:: -(-len(drawn) // _MAX_SCATTERED)]
    values = [value for point in drawn for value in point[:2]]
    ticks = nice_ticks(min(values), max(values), 5)
    scale = _Axes(ticks[0], ticks[-1], ticks[0], ticks[-1])
    ends = [(scale.x(tick), scale.y(tick)) for tick in (ticks[0], ticks[-1])]
    diagonal = "L".join(f"{x:.1f},{y:.1f}" for x, y in ends)
    dots = "".join(
        f'<circle class="dot scattered" cx="{scale.x(gold):.1f}" cy="{scale.y(predicted):.1f}" r="2.6">'
        f"<title>{escape(text)}</title></circle>"
        for gold, predicted, text in drawn
    )
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT + 8}" role="img" aria-label="{escape(title)}">'
        + _grid(scale, ticks, ticks, lambda value: f"{value:.2f}")
        + f'<path class="line baseline" d="M{diagonal}"/>{dots}'
        + f'<text class="tick" x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT + 5}" text-anchor="middle">{escape(axes[0])}'
        + f'</text><text class="tick" x="{_LEFT + 6}" y="{_TOP - 4}">{escape(axes[1])}</text></svg>'
    )


def _grid(axes: _Axes, x_ticks: Sequence[float], y_ticks: Sequence[float], value_text: Callable[[float], str]) -> str:
    parts = []
    for tick, text in zip(y_ticks, tick_texts([value_text(tick) for tick in y_ticks]), strict=True):
        y = axes.y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{escape(text)}</text>')
    for tick in x_ticks:
        if axes.x_low <= tick <= axes.x_high:
            anchor = "end" if axes.x(tick) > _WIDTH - 2 * _RIGHT else "middle"
            parts.append(
                f'<text class="tick" x="{axes.x(tick):.1f}" y="{_HEIGHT - 10}" text-anchor="{anchor}">'
                f"{short_count(tick)}</text>"
            )
    return "".join(parts)


def _line(line: Series, axes: _Axes, value_text: Callable[[float], str]) -> str:
    commands, pen_down = [], False
    for x, y in line.points:
        if math.isfinite(y):
            commands.append(f"{'L' if pen_down else 'M'}{axes.x(x):.1f},{axes.y(y):.1f}")
        pen_down = math.isfinite(y)
    path = f'<path class="line {line.style}" d="{"".join(commands)}"/>'
    alone, few = len(line.finite) == 1, len(line.finite) <= _MAX_MARKERS
    if line.style != "validation" and not alone and (line.style in ("baseline", "published") or not few):
        return path
    visible = alone or (line.style == "validation" and few)
    return path + "".join(_marker(line, axes, x, y, value_text, visible=visible) for x, y in line.finite)


def _marker(line: Series, axes: _Axes, x: float, y: float, value_text: Callable[[float], str], *, visible: bool) -> str:
    where = f'cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}"'
    dot = f'<circle class="dot {line.style}" {where} r="2.2"/>' if visible else ""
    text = escape(f"{line.name}, step {x:,.0f}: {value_text(y)}")
    # The larger unseen disc is what the pointer has to hit to see the value.
    return f'{dot}<circle class="hit" {where} r="7"><title>{text}</title></circle>'
