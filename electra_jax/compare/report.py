"""The figure, the page and the terminal's table of a comparison, made from comparison.json alone."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from electra_jax.compare.results import MEAN, of_checkpoint, table_of, tasks_of
from electra_jax.config.comparison import RANDOM
from electra_jax.files import replacing
from electra_jax.reports.page import making_html, verdict_html, write_page
from electra_jax.reports.style import table_html
from electra_jax.run_directory import FIGURE, REPORT

# Okabe and Ito's colours, which also those tell apart who do not see all colours, black first; then again with other
# markers and dashes.
_COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MARKERS = "osD^vPX*<>"
_LINES = ("-", "--", ":")
_INK = "#333333"
_LEGEND = (
    "Score of each variant’s checkpoints after fine-tuning, against the matrix FLOPs of their pre-training, backward "
    "pass and generator included. A line joins the medians over the seeds, a bar reaches from the lowest to the "
    "highest seed, and every seed is a small point; points of the same FLOPs stand a little beside each other. The "
    "grey band is where the same model ends from random weights."
)
# Points of several variants at the same FLOPs stand beside each other, this factor apart.
_APART = 1.025


def draw(comparison: Mapping[str, Any], path: Path) -> None:
    """Writes comparison.png: a panel for each task and one for their mean, scores against FLOPs on a log axis."""
    tasks = tasks_of(comparison)
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    style = {"font.size": 11, "axes.edgecolor": "#999999", "text.color": _INK, "axes.labelcolor": _INK}
    with mpl.rc_context(style):
        width = max(7.0, 4.3 * columns + 0.4)
        figure = Figure(figsize=(width, 3.5 * rows + 1.1), layout="constrained")
        for number, task in enumerate(tasks, start=1):
            _panel(figure.add_subplot(rows, columns, number), comparison, task)
        handles: dict[str, Any] = {}
        for axes in figure.axes:
            handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        if handles:
            # A name's letters and the piece of line before it, in inches: no name is cut off.
            column = 0.9 + 0.1 * max(map(len, handles))
            figure.legend(
                handles.values(),
                handles,
                loc="outside lower center",
                ncols=max(1, min(4, len(handles), int(width / column))),
                frameon=False,
            )
        with replacing(path) as part:
            figure.savefig(part, format="png", dpi=150)


def _panel(axes: Axes, comparison: Mapping[str, Any], task: str) -> None:
    """One task: of each variant the medians, their lowest and highest seed, and every seed."""
    scores = [*comparison["scores"], *comparison["means"]]
    baseline = of_checkpoint(scores, RANDOM, 0.0).get(task)
    if baseline is not None:
        axes.axhspan(baseline["lowest"], baseline["highest"], color="#bbbbbb", alpha=0.4, lw=0)
        axes.axhline(baseline["median"], color="#777777", lw=1.2, ls="--", label="random weights")
    names = list(comparison["variants"])
    for number, name in enumerate(names):
        found = sorted(
            (score for score in scores if (score["variant"], score["task"]) == (name, task)),
            key=lambda score: score["flops"],
        )
        if not found:
            continue
        apart = _APART ** (number - (len(names) - 1) / 2)
        flops, medians = [score["flops"] * apart for score in found], [score["median"] for score in found]
        colour = _COLOURS[number % len(_COLOURS)]
        spread = [
            [score["median"] - score["lowest"] for score in found],
            [score["highest"] - score["median"] for score in found],
        ]
        line = _LINES[number // len(_COLOURS) % len(_LINES)]
        axes.errorbar(
            flops, medians, yerr=spread, color=colour, lw=1.5, ls=line, marker=_MARKERS[number % len(_MARKERS)],
            ms=5, elinewidth=0.9, capsize=2, label=name,
        )  # fmt: skip
        seeds = [(at, value) for at, score in zip(flops, found, strict=True) for value in score["by_seed"].values()]
        axes.plot(*zip(*seeds, strict=True), ".", color=colour, ms=4, alpha=0.35)
    _flops_axis(axes, [fraction * comparison["flops"] for fraction in comparison["fractions"]])
    axes.grid(True, which="major", color="#e4e4e4", lw=0.7)
    axes.set_axisbelow(True)
    axes.set_title(task)
    axes.set_xlabel("pre-training FLOPs")
    metric = next((score["metric"] for score in scores if score["task"] == task), "")
    axes.set_ylabel(metric.replace("_", " "))


def _flops_axis(axes: Axes, flops: Sequence[float]) -> None:
    """The same of every panel, also while most of the points are to come, with a tick at each checkpoint's FLOPs."""
    axes.set_xscale("log")
    axes.set_xlim(flops[0] / 1.25, flops[-1] * 1.25)
    ticks = [flops[-1]]
    for one in reversed(flops):
        # Closer ones would be written over each other.
        if one * 1.35 < ticks[-1]:
            ticks.append(one)
    parts = [f"{one:.3g}".partition("e+") for one in ticks]
    labels = [rf"${number} \times 10^{{{exponent}}}$" if exponent else number for number, _, exponent in parts]
    axes.set_xticks(ticks, labels)
    axes.minorticks_off()


def write_report(comparison: Mapping[str, Any], directory: Path) -> None:
    """Writes comparison.png, and report.html with the picture inside; nothing is fetched when it is opened.

    Args:
        comparison: of comparison.json.
        directory: where they go.
    """
    picture = directory / FIGURE
    draw(comparison, picture)
    title = "ELECTRA: quality for the same compute"
    write_page(directory / REPORT, title, _body(comparison, picture.read_bytes()))


def _body(comparison: Mapping[str, Any], picture: bytes) -> str:
    seeds = len(comparison["seeds"])
    facts = [
        f"{len(comparison['variants'])} variants of {comparison['flops']:.4g} FLOPs each",
        f"{len(comparison['tasks'])} tasks",
        f"{seeds} seed{'' if seeds == 1 else 's'}",
        comparison["date"],
    ]
    image = base64.b64encode(picture).decode("ascii")
    return "\n".join(
        [
            '<header><h1>Quality for the same compute</h1><p class="sub">',
            escape(" · ".join(facts)),
            "</p></header>",
            _progress(comparison),
            f'<p class="note">{escape(_LEGEND)}</p>',
            '<img style="width:100%;height:auto;background:#fff;border-radius:10px" '
            f'alt="{escape(_described(comparison))}" src="data:image/png;base64,{image}">',
            "<h2>Scores</h2>",
            '<p class="note">Median over the seeds ± standard deviation, of the checkpoint of highest score on the dev '
            "split, per cent. A seed that failed (says the same of every example) counts with its score.</p>",
            table_html(
                ["variant, fraction", *tasks_of(comparison)], [[name, *cells] for name, cells in table_of(comparison)]
            ),
            "<h2>Pre-training</h2>",
            '<p class="note">A step costs each variant something else, so that the same FLOPs are more or fewer steps. '
            "The learning rate falls over the whole budget. The hash is of the parameters: names, shapes and values."
            "</p>",
            _checkpoints(comparison),
            "<h2>How this was made</h2>",
            making_html(_making(comparison), comparison["config"]),
            "<footer>Written by ELECTRA-JAX from comparison.json.</footer>",
        ]
    )


def _progress(comparison: Mapping[str, Any]) -> str:
    pieces = comparison["pieces"]
    failed = [f"{name}: {sentence}" for name, sentence in pieces["failed"].items()]
    if pieces["done"] == pieces["all"]:
        return verdict_html("Complete.", f"All {pieces['all']} pre-trainings and fine-tunings are done.", [])
    text = f"{pieces['done']} of {pieces['all']} pre-trainings and fine-tunings are done."
    return verdict_html("Not complete.", text, failed or ["What is missing below is still to come."])


def _described(comparison: Mapping[str, Any]) -> str:
    lines = (f"{name}: {', '.join(cells)}" for name, cells in table_of(comparison))
    return f"score against FLOPs on {', '.join(tasks_of(comparison))}; {'; '.join(lines)}"


def _checkpoints(comparison: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{one['variant']}, {one['fraction']:g}",
            f"{one['steps']:,}",
            f"{one['flops']:.4g}",
            f"{comparison['variants'][one['variant']]['step_flops']:.4g}",
            one["parameters_sha256"][:16],
        ]
        for one in comparison["checkpoints"]
    ]
    return table_html(["variant, fraction", "steps", "FLOPs", "FLOPs a step", "SHA-256"], rows)


def _making(comparison: Mapping[str, Any]) -> dict[str, Any]:
    commands = {
        f"{one['variant']}, {one['fraction']:g}" + (f", {one['task']}" if "task" in one else ""): one["command"]
        for one in [*comparison["checkpoints"], *comparison["scores"]]
    }
    shown = {name: comparison[name] for name in ("command", "date", "versions", "machine", "variants")}
    return shown | {"commands": commands}


def show(comparison: Mapping[str, Any]) -> None:
    """The table on the terminal, however narrow that is."""
    table = Table(title=f"median ± sd over {len(comparison['seeds'])} seeds, {comparison['flops']:.4g} FLOPs each")
    table.add_column("variant, fraction")
    for task in tasks_of(comparison):
        table.add_column(task, justify="right", style="bold" if task == MEAN else "")
    lines: Sequence[tuple[str, list[str]]] = table_of(comparison)
    for name, cells in lines:
        table.add_row(name, *cells)
    console = Console()
    needed = console.measure(table, options=console.options.update(width=1000)).maximum
    (console if needed <= console.width else Console(width=needed)).print(table)
