"""Figures that stand alone: a legend that no name is cut off of, logarithmic axes, text that stays text."""

from xml.etree import ElementTree

import pytest

from electra_jax.reports.charts import Series, log_axis, log_ticks, plot, value_axis
from electra_jax.reports.figures import PANEL, Panel, draw_figure, look_of

SVG = "{http://www.w3.org/2000/svg}"


def panel(title: str) -> Panel:
    series = Series("a", "", [(1.0, 2.0), (10.0, 4.0)], spread=[(1.0, 3.0), (4.0, 4.0)], texts=["two", "four"])
    x = log_axis([1.0, 10.0], "{:g}".format, margin=2.0)
    chart = plot(title, [series], x=x, y=value_axis([1.0, 4.0], "{:.1f}".format), box=PANEL, band=(2.0, 3.0))
    return Panel(title, chart, [look_of(0)], labelled=True)


def test_points_of_many_series_differ_without_their_lines() -> None:
    looks = [look_of(number) for number in range(21)]
    assert len({(look.colour, look.marker) for look in looks}) == 21
    assert len({(look.colour, look.dash) for look in looks}) == 21


def test_panels_stand_in_rows_over_a_legend_with_room_for_every_name() -> None:
    names = [f"a variant <of> a long name & {number}" for number in range(9)]
    figure = draw_figure(
        [panel("<one>"), panel("two"), panel("three")],
        [(look_of(number), name) for number, name in enumerate(names)],
        columns=2,
        label="label",
    )
    root = ElementTree.fromstring(figure)
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    assert width == 2 * PANEL.width
    assert [group.get("transform") for group in root.iter(f"{SVG}g")] == [
        "translate(0,0)",
        f"translate({PANEL.width},0)",
        f"translate(0,{PANEL.height})",
    ]
    texts = {text.text: text for text in root.iter(f"{SVG}text")}
    assert {"<one>", "two", "four", *names} <= set(texts)
    ends = [(float(texts[name].get("x", "")), float(texts[name].get("y", ""))) for name in names]
    assert all(x + 6 * len(name) <= width for (x, _), name in zip(ends, names, strict=True))
    assert max(y for _, y in ends) < height
    assert len({y for _, y in ends}) > 1


def test_a_logarithmic_axis_has_a_tick_at_each_value_that_has_the_room() -> None:
    axis = log_axis([1.0, 8.0, 10.0], "{:g}".format, margin=2.0)
    assert [text for _, text in axis.ticks] == ["10", "1"]
    assert [axis.share(value) for value in (0.5, 20.0)] == pytest.approx([0.0, 1.0])
    assert axis.share(10**0.5) == pytest.approx(0.5)


def test_ticks_of_decades_are_round() -> None:
    assert [tick for tick, _ in log_ticks(0.3, 4.0, str, margin=1.0).ticks] == pytest.approx([0.5, 1.0, 2.0])
    assert [tick for tick, _ in log_ticks(0.3, 4000.0, str, margin=1.0).ticks] == pytest.approx([1, 10, 100, 1000])
