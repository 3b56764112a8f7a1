"""Show a comparison as a figure, a page and a table on the terminal, all from comparison.json alone."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as TerminalTable

from electra_jax.compare.results import MEAN, cell, of_checkpoint, table_of, tasks_of
from electra_jax.config.comparison import RANDOM
from electra_jax.files import replace_file
from electra_jax.reports import charts
from electra_jax.reports.page import Making, Table, Verdict, render, write_page
from electra_jax.run_directory import FIGURE, REPORT

# Points of several variants at the same FLOPs are drawn beside each other, this factor apart.
_APART = 1.025
_PANEL = charts.Box(width=380, height=290, left=48, right=14, top=32, bottom=48)
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
# The width of a letter, of the piece of line before a name, and the height of a line of names, in the figure's units.
_LETTER, _SAMPLE, _ROW = 7.0, 52, 22


@dataclasses.dataclass(frozen=True)
class Panel:
    """A chart of the figure under its title, and where its upper left corner is."""

    title: str
    chart: charts.Chart
    left: float
    top: float


@dataclasses.dataclass(frozen=True)
class Key:
    """A name of the legend, the style of its line, and where it is."""

    name: str
    style: str
    left: float
    top: float


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawing of panels over a legend; `label` is read out by screen readers."""

    label: str
    width: float
    height: float
    panels: Sequence[Panel]
    keys: Sequence[Key]


def write_report(comparison: Mapping[str, Any], directory: Path) -> None:
    """Write the figure, and the page with the figure inside.

    Args:
        comparison: the contents of comparison.json.
        directory: the directory that both go to.
    """
    drawing = figure_of(comparison)
    replace_file(directory / FIGURE, render("figure.svg", figure=drawing))
    scores = Table(["variant, fraction", *tasks_of(comparison)], [[name, *row] for name, row in table_of(comparison)])
    made = {name: comparison[name] for name in ("command", "date", "versions", "machine", "variants")}
    commands = {_name(one): one["command"] for one in [*comparison["checkpoints"], *comparison["scores"]]}
    write_page(
        directory / REPORT,
        "comparison.html",
        comparison=comparison,
        outcome=_progress(comparison["pieces"]),
        figure=drawing,
        scores=scores,
        checkpoints=_checkpoints(comparison),
        made=Making.of_record(made | {"commands": commands}, comparison["config"]),
    )


def figure_of(comparison: Mapping[str, Any]) -> Figure:
    """Return a panel for each task and one for their mean: scores against FLOPs on a logarithmic axis."""
    tasks = tasks_of(comparison)
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    panels = [
        Panel(task, _chart(comparison, task), index % columns * _PANEL.width, index // columns * _PANEL.height)
        for index, task in enumerate(tasks)
    ]
    width = columns * _PANEL.width
    keys = _keys(comparison, width, rows * _PANEL.height)
    lines = "; ".join(f"{name}: {', '.join(cells)}" for name, cells in table_of(comparison))
    label = f"score against FLOPs on {', '.join(tasks)}; {lines}"
    return Figure(label, width, max((key.top for key in keys), default=rows * _PANEL.height) + _ROW, panels, keys)


def _chart(comparison: Mapping[str, Any], task: str) -> charts.Chart:
    """Return the chart of one task: of each variant the medians, their lowest and highest seed, and every seed."""
    scores = [score for score in [*comparison["scores"], *comparison["means"]] if score["task"] == task]
    baseline = of_checkpoint(scores, RANDOM, 0.0).get(task)
    flops = [fraction * comparison["flops"] for fraction in comparison["fractions"]]
    x = charts.log_axis(flops, power_of_ten, margin=1.25)
    values = [value for score in scores for value in score["by_seed"].values()]
    y = charts.value_axis(values or [0, 100], "{:.1f}".format)
    lines = [_series(scores, name, number, comparison) for number, name in enumerate(comparison["variants"])]
    if baseline is not None:
        median = baseline["median"]
        lines = [charts.Series("random weights", "baseline", [(x.low, median), (x.high, median)]), *lines]
    chart = charts.plot(task, lines, x=x, y=y, box=_PANEL, band=baseline and (baseline["lowest"], baseline["highest"]))
    metric = next((score["metric"] for score in scores), "").replace("_", " ")
    return dataclasses.replace(chart, x_title="pre-training FLOPs", y_title=metric)


def _series(
    scores: Sequence[Mapping[str, Any]], variant: str, number: int, comparison: Mapping[str, Any]
) -> charts.Series:
    found = sorted((score for score in scores if score["variant"] == variant), key=lambda score: score["flops"])
    apart = _APART ** (number - (len(comparison["variants"]) - 1) / 2)
    return charts.Series(
        variant,
        _style(number),
        [(score["flops"] * apart, score["median"]) for score in found],
        spread=[(score["lowest"], score["highest"]) for score in found],
        scattered=[(score["flops"] * apart, value) for score in found for value in score["by_seed"].values()],
        texts=[f"{variant}, {score['fraction']:g}: {cell(score)}" for score in found],
    )


def _style(number: int) -> str:
    """Return the classes of a variant's line in figure.svg: seven colours, then the same again with dashes."""
    return f"c{number % 7} d{number // 7 % 3}"


def _keys(comparison: Mapping[str, Any], width: float, top: float) -> list[Key]:
    """Return the legend: as many names in a row as there is room for."""
    names = [(name, _style(number)) for number, name in enumerate(comparison["variants"])]
    if comparison["random_baseline"]:
        names = [("random weights", "baseline"), *names]
    column = _SAMPLE + _LETTER * max(len(name) for name, _ in names)
    columns = max(1, min(len(names), int(width / column)))
    left = max(0.0, (width - columns * column) / 2)
    return [
        Key(name, style, round(left + index % columns * column, 1), top + _ROW / 2 + index // columns * _ROW)
        for index, (name, style) in enumerate(names)
    ]


def power_of_ten(value: float) -> str:
    """Return a number with three digits as a person writes it: 2.5 × 10¹²."""
    number, _, exponent = f"{value:.3g}".partition("e+")
    return f"{number} × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}" if exponent else number


def _progress(pieces: Mapping[str, Any]) -> Verdict:
    if pieces["done"] == pieces["all"]:
        return Verdict("Complete.", f"All {pieces['all']} pre-trainings and fine-tunings are done.")
    failed = [f"{name}: {sentence}" for name, sentence in pieces["failed"].items()]
    text = f"{pieces['done']} of {pieces['all']} pre-trainings and fine-tunings are done."
    return Verdict("Not complete.", text, failed or ["What is missing below is still to come."])


def _name(one: Mapping[str, Any]) -> str:
    return f"{one['variant']}, {one['fraction']:g}" + (f", {one['task']}" if "task" in one else "")


def _checkpoints(comparison: Mapping[str, Any]) -> Table:
    rows = [
        [
            _name(one),
            f"{one['steps']:,}",
            f"{one['flops']:.4g}",
            f"{comparison['variants'][one['variant']]['step_flops']:.4g}",
            one["parameters_sha256"][:16],
        ]
        for one in comparison["checkpoints"]
    ]
    return Table(["variant, fraction", "steps", "FLOPs", "FLOPs per step", "SHA-256"], rows)


def show(comparison: Mapping[str, Any]) -> None:
    """Print the table of scores, however narrow the terminal is."""
    table = TerminalTable(
        title=f"median ± sd over {len(comparison['seeds'])} seeds, {comparison['flops']:.4g} FLOPs each"
    )
    table.add_column("variant, fraction")
    for task in tasks_of(comparison):
        table.add_column(task, justify="right", style="bold" if task == MEAN else "")
    for name, cells in table_of(comparison):
        table.add_row(name, *cells)
    console = Console()
    needed = console.measure(table, options=console.options.update(width=1000)).maximum
    (console if needed <= console.width else Console(width=needed)).print(table)
