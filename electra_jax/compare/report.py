"""Draw a comparison: its figure, its page and the table for the terminal, made from comparison.json alone."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.table import Table as TerminalTable

from electra_jax.compare.compared_item import TRUNK
from electra_jax.compare.results import (
    MEAN,
    checkpoints_counted,
    heading_of,
    is_void,
    of_checkpoint,
    table_of,
    tasks_of,
)
from electra_jax.compare.spread import DEVIATIONS
from electra_jax.config.comparison import PAIRS, RANDOM, TRIGRAM
from electra_jax.monitoring.console import PlainConsole
from electra_jax.reports.charts import Series, log_axis, plot, value_axis
from electra_jax.reports.figures import BASELINE, PANEL, Panel, draw_figure, look_of, write_figure
from electra_jax.reports.page import Making, Table, Verdict, counted, write_page
from electra_jax.run_directory import FIGURE, REPORT

# Points of several variants at the same FLOPs are drawn next to each other, this factor apart.
_APART = 1.025
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def write_report(comparison: Mapping[str, Any], directory: Path) -> None:
    """Write the figure, and the page that contains it; opening the page fetches nothing.

    Args:
        comparison: the content of comparison.json.
        directory: the folder to write to.
    """
    figure = draw(comparison)
    write_figure(directory / FIGURE, figure)
    write_page(
        directory / REPORT,
        "comparison.html",
        facts=[
            f"{counted(len(comparison['variants']), 'variant')} of {comparison['flops']:.4g} FLOPs each",
            counted(len(comparison["tasks"]), "task"),
            counted(len(comparison["pretraining_seeds"]), "pre-training seed"),
            counted(len(comparison["seeds"]), "fine-tuning seed"),
            comparison["date"],
        ],
        outcome=_progress(comparison),
        figure=figure,
        scores=Table(
            ["variant, fraction", *tasks_of(comparison)], [[name, *cells] for name, cells in table_of(comparison)]
        ),
        selection=checkpoints_counted(comparison),
        heading=heading_of(comparison),
        primary=comparison["primary"],
        several=len(comparison["pretraining_seeds"]) > 1,
        cool_down=comparison["cool_down"],
        deviations=f"{DEVIATIONS:g}",
        tuning=_tuning(comparison) if comparison["tuning"] else None,
        trigram=_trigram(comparison),
        pairs=[task for task in comparison["tasks"] if task.startswith(PAIRS)],
        ahead=_ahead(comparison) if comparison["ahead"] else None,
        checkpoints=_checkpoints(comparison),
        made=Making.of_record(_making(comparison), comparison["config"]),
    )


def draw(comparison: Mapping[str, Any]) -> Markup:
    """Draw a panel for each task and one for their mean: scores against FLOPs on a logarithmic axis."""
    names = list(comparison["variants"])
    panels = [_panel(comparison, task) for task in tasks_of(comparison)]
    keys = [(look_of(number), _marked(comparison, name)) for number, name in enumerate(names)]
    if comparison["random_baseline"]:
        keys.append((BASELINE, "random weights"))
    lines = (f"{name}: {', '.join(cells)}" for name, cells in table_of(comparison))
    label = f"score against FLOPs on {', '.join(tasks_of(comparison))}; {'; '.join(lines)}"
    return draw_figure(panels, keys, columns=3, label=label)


def _marked(comparison: Mapping[str, Any], variant: str) -> str:
    """Return a variant's name, marked if it is void at every fraction."""
    void = all(is_void(comparison, variant, fraction) for fraction in comparison["fractions"])
    return f"{variant} (void)" if void else variant


def _panel(comparison: Mapping[str, Any], task: str) -> Panel:
    """Work out the panel of a task: the centers and bars of each variant's cells, and every seed."""
    # A NaN score cannot be drawn.
    scores = [cell for cell in comparison["cells"] if cell["task"] == task and math.isfinite(cell["center"])]
    # The axis is the same in every panel, even while most points are missing.
    flops = [fraction * comparison["flops"] for fraction in comparison["fractions"]]
    x = log_axis(flops, _power, margin=1.25)
    baseline = of_checkpoint(scores, RANDOM, 0.0).get(task)
    names = list(comparison["variants"])
    drawn = []
    if baseline is not None:
        drawn.append(
            (BASELINE, Series("random weights", "", [(x.low, baseline["center"]), (x.high, baseline["center"])]))
        )
    for number, name in enumerate(names):
        found = sorted((score for score in scores if score["variant"] == name), key=lambda score: score["flops"])
        if found:
            drawn.append((look_of(number), _series(name, found, _APART ** (number - (len(names) - 1) / 2))))
    values = [value for score in scores for value in (score["low"], score["high"])] or [0.0, 100.0]
    chart = plot(
        task,
        [series for _, series in drawn],
        x=x,
        y=value_axis(values, lambda value: f"{value:.2f}"),
        box=PANEL,
        band=None if baseline is None else (baseline["low"], baseline["high"]),
        titles=("pre-training FLOPs", ", ".join(sorted({score["metric"].replace("_", " ") for score in scores}))),
    )
    return Panel(task, chart, [look for look, _ in drawn])


def _series(name: str, found: Sequence[Mapping[str, Any]], apart: float) -> Series:
    return Series(
        name,
        "",
        [(score["flops"] * apart, score["center"]) for score in found],
        spread=[(score["low"], score["high"]) for score in found],
        texts=[f"{name}, {score['fraction']:g}: {score['center']:.2f}" for score in found],
        scattered=[
            (score["flops"] * apart, value, f"{name}, {score['fraction']:g}, seed {seed}: {value:.2f}")
            for score in found
            for seed, value in score["by_seed"].items()
        ],
    )


def _power(flops: float) -> str:
    """Write a number with three significant digits and a power of ten."""
    digits, _, exponent = f"{flops:.3g}".partition("e+")
    return f"{digits} × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}" if exponent else digits


def _progress(comparison: Mapping[str, Any]) -> Verdict:
    pieces = comparison["pieces"]
    failed = [f"{name}: {sentence}" for name, sentence in pieces["failed"].items()]
    if pieces["done"] == pieces["all"]:
        return Verdict("Complete.", f"All {pieces['all']} pre-trainings and fine-tunings are done.")
    text = f"{pieces['done']} of {pieces['all']} pre-trainings and fine-tunings are done."
    if not failed:
        return Verdict("Not complete.", f"{text} What is missing below is still to come.", plain=True)
    return Verdict("Not complete.", text, failed)


def _tuning(comparison: Mapping[str, Any]) -> Table:
    """Return a row for each variant: the pair that its trials chose, the scores of the trials, and their cost."""
    rows = []
    for variant, found in comparison["tuning"].items():
        best = found["chosen"]
        trials = "; ".join(
            f"{one['learning_rate']:g}, {one['warmup']:g}: {one['score']:.2f}" for one in found["trials"]
        )
        pair = "not known yet" if best is None else f"{best['learning_rate']:g}, {best['warmup']:g}"
        edge = ", at the edge of the grid" if best is not None and best["at_the_edge"] else ""
        rows.append([variant, pair + edge, trials, f"{found['flops']:.4g}"])
    return Table(["variant", "learning rate, warm-up", "score of each", "FLOPs of tuning"], rows)


def _ahead(comparison: Mapping[str, Any]) -> Table:
    """Return a row for each variant: the variants that it is ahead of at each fraction."""
    fractions = list(comparison["ahead"])
    rows = [
        [variant, *(_ahead_at(comparison, variant, fraction) for fraction in comparison["fractions"])]
        for variant in comparison["variants"]
    ]
    return Table(["variant", *(f"ahead of, at {fraction}" for fraction in fractions)], rows)


def _others(others: Sequence[str]) -> str:
    return ", ".join(others) or "none"


def _ahead_at(comparison: Mapping[str, Any], variant: str, fraction: float) -> str:
    others = comparison["ahead"][f"{fraction:g}"].get(variant)
    if others is not None:
        return _others(others)
    return "void" if is_void(comparison, variant, fraction) else "not known yet"


def _trigram(comparison: Mapping[str, Any]) -> str | None:
    """Describe how often the trigram model is right; None if that is not known."""
    found = of_checkpoint(comparison["cells"], TRIGRAM, 0.0)
    return next((f"{cell['mean']:.2f} % of the words that {task} masks" for task, cell in found.items()), None)


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


def _name(one: Mapping[str, Any]) -> str:
    """Return the name of the checkpoint that an entry describes or scores."""
    trunk = ", trunk" if one.get("role") == TRUNK else ""
    return f"{one['variant']}, {one['fraction']:g}, seed {one['pretraining_seed']}{trunk}"


def _making(comparison: Mapping[str, Any]) -> dict[str, Any]:
    commands = {
        _name(one) + (f", {one['task']}" if "task" in one else ""): one["command"]
        for one in [*comparison["checkpoints"], *comparison["scores"]]
    }
    shown = {name: comparison[name] for name in ("command", "date", "versions", "machine", "variants")}
    return shown | {"commands": commands}


def show(comparison: Mapping[str, Any]) -> None:
    """Print the table on the terminal, however narrow it is."""
    table = TerminalTable(
        title=f"{heading_of(comparison)}; {comparison['flops']:.4g} FLOPs each; {checkpoints_counted(comparison)}"
    )
    table.add_column("variant, fraction")
    for task in tasks_of(comparison):
        table.add_column(task, justify="right", style="bold" if task == MEAN else "")
    lines: Sequence[tuple[str, list[str]]] = table_of(comparison)
    for name, cells in lines:
        table.add_row(name, *cells)
    console = PlainConsole()
    needed = console.measure(table, options=console.options.update(width=1000)).maximum
    console = console if needed <= console.width else PlainConsole(width=needed)
    console.print(table)
    for fraction, found in comparison["ahead"].items():
        for variant, others in found.items():
            console.print(f"{variant} at {fraction} on {comparison['primary']} is ahead of: {_others(others)}")
    for fraction, known in (comparison["void"] or {}).items():
        for variant in (name for name, void in known.items() if void):
            console.print(
                f"{variant} at {fraction} is void: it predicts masked words less often than the trigram model"
            )
