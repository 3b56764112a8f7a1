"""Draw figures of several panels as SVG, for separate files and for pages.

A figure may be put into a paper, so it is drawn on white and with plain attributes, which every SVG viewer supports.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from electra_jax.files import replace_file
from electra_jax.reports.charts import Box, Chart
from electra_jax.reports.page import render

# The colours of Okabe and Ito, black first, which colour-blind readers can distinguish; further series repeat them with
# other dashes and markers.
_COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ("", "6 3", "2 2.5")
# Outlines around the point: a circle, a square, a diamond, triangles up and down, a bar, a cross.
_MARKERS = (
    "M-3.2,0a3.2,3.2 0 1,0 6.4,0a3.2,3.2 0 1,0 -6.4,0z",
    "M-2.9,-2.9h5.8v5.8h-5.8z",
    "M0,-4.2L4.2,0L0,4.2L-4.2,0z",
    "M0,-4L3.8,3L-3.8,3z",
    "M0,4L3.8,-3L-3.8,-3z",
    "M-1.6,-4h3.2v8h-3.2z",
    "M-1.3,-3.8h2.6v2.5h2.5v2.6h-2.5v2.5h-2.6v-2.5h-2.5v-2.6h2.5z",
)
_LINE, _PIECE, _LETTER, _GAP = 20, 34, 6.6, 18
PANEL = Box(width=340, height=262, left=50, right=16, top=46, bottom=44)


@dataclass(frozen=True)
class Look:
    """The look of a line; `marker` is the outline of its points ("" for none)."""

    colour: str
    dash: str
    marker: str


@dataclass(frozen=True)
class Panel:
    """A chart of a figure: its title, the look of each of its lines, and whether marks show their texts."""

    title: str
    chart: Chart
    looks: Sequence[Look]
    labelled: bool = False


@dataclass(frozen=True)
class Key:
    """An entry of the legend: the look of a line, its meaning, and the position of the entry."""

    look: Look
    text: str
    x: float
    y: float


def look_of(index: int) -> Look:
    """Return the look of a series by its number; any 21 consecutive series differ in both line and coloured marker."""
    again = index // len(_COLOURS)
    return Look(
        _COLOURS[index % len(_COLOURS)],
        _DASHES[again % len(_DASHES)],
        _MARKERS[(index + again) % len(_MARKERS)],
    )


BASELINE = Look("#777777", "5 3", "")


def draw_figure(
    panels: Sequence[Panel], keys: Sequence[tuple[Look, str]], *, columns: int, label: str, title: Sequence[str] = ()
) -> Markup:
    """Return a figure as SVG.

    Args:
        panels: the charts, row by row; all have the size `PANEL`.
        keys: the legend below the panels: the meaning of the lines of all panels.
        columns: the number of panels in a row.
        label: the content, for screen readers.
        title: the lines above the panels.
    """
    columns = min(columns, len(panels))
    width, top = columns * PANEL.width, _LINE * len(title) + (8 if title else 0)
    bottom = top + PANEL.height * -(-len(panels) // columns)
    rows: list[list[tuple[Look, str, float]]] = [[]]
    for look, text in keys:
        needed = _PIECE + _LETTER * len(text) + _GAP
        if rows[-1] and sum(used for *_, used in rows[-1]) + needed > width:
            rows.append([])
        rows[-1].append((look, text, needed))
    placed = []
    for number, row in enumerate(rows):
        x = (width - sum(needed for *_, needed in row)) / 2
        for look, text, needed in row:
            placed.append(Key(look, text, round(x, 1), bottom + _LINE * (number + 0.5)))
            x += needed
    svg = render(
        "figure.svg",
        label=label,
        title=title,
        width=width,
        height=bottom + _LINE * len(rows) + 6,
        line=_LINE,
        piece=_PIECE - 8,
        keys=placed,
        panels=[
            (panel, PANEL.width * (index % columns), top + PANEL.height * (index // columns))
            for index, panel in enumerate(panels)
        ],
    )
    return Markup(svg)


def write_figure(path: Path, figure: Markup) -> None:
    """Write a figure as an SVG file."""
    replace_file(path, figure)
