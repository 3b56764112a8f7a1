"""Write the report of a pre-training run: one HTML page that can be archived, mailed and printed."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from etils import epath

from electra_jax.files import path_of
from electra_jax.json_files import parse_json
from electra_jax.monitoring.health import diagnose
from electra_jax.monitoring.health_checks import Setting, constant_guess_loss
from electra_jax.monitoring.history import history_of
from electra_jax.monitoring.metrics_file import MetricsRow, Rows, by_step, parse_lines
from electra_jax.monitoring.published_curve import Curve, published_curve
from electra_jax.reports import passages, summary
from electra_jax.reports.charts import Figure, Series, line_chart
from electra_jax.reports.demo import read_demo
from electra_jax.reports.health import health_section, published_series
from electra_jax.reports.page import (
    Making,
    Table,
    Tile,
    decimal,
    number,
    percent,
    plain,
    read_if_there,
    read_text,
    write_page,
)
from electra_jax.run_directory import CONFIG, EVALUATION, METRICS, REPORT, RUN


class SettingRecord(TypedDict):
    """The JSON form of a `Setting`."""

    vocab_size: int
    batch_size: int
    generator_learns: bool
    judges_every_token: bool
    differences: list[str]


class Evaluation(TypedDict):
    """The fields of evaluation.json that a page requires."""

    step: int
    metrics: dict[str, Any]
    passages: list[dict[str, Any]]
    setting: SettingRecord


@dataclass(frozen=True)
class _Run:
    name: str
    train: Rows
    validation: Rows
    warned: Rows
    evaluation: dict[str, Any]
    record: dict[str, Any]
    config: str
    setting: Setting
    published: Curve

    @property
    def metrics(self) -> dict[str, Any]:
        """The held-out metrics."""
        return self.evaluation["metrics"]


def write_report(model_dir: str) -> str:
    """Write MODEL_DIR/report.html from the files that a pre-training run left there.

    Reads metrics.jsonl and evaluation.json; and run.json, config.gin and the results of two fine-tunings
    (`demo.read_demo`) if they exist. The page contains everything that it needs: style, curves (SVG) and text; nothing
    is fetched when it is opened.

    Args:
        model_dir: the run directory.

    Returns:
        The path of the page.

    Raises:
        UserError: if metrics.jsonl or evaluation.json is missing, or a file is not one that a run writes.
    """
    folder = path_of(model_dir)
    run = _read_run(folder)
    path = folder / REPORT
    rows = run.train + run.validation
    findings = diagnose(history_of(rows), run.setting, run.published)
    found_by_evaluation = {name: value for name, value in run.evaluation.items() if name not in ("metrics", "passages")}
    write_page(
        path,
        "pretraining.html",
        name=run.name,
        evaluation=run.evaluation,
        date=run.record.get("date", ""),
        summary=_held_out(run),
        outcome=summary.verdict(findings, run.evaluation, run.validation),
        caveats=summary.caveats(run.evaluation),
        figures=[*_share_tiles(run), *_loss_tiles(run)],
        chart_keys=_keys(run),
        charts=_charts(run),
        health=health_section(findings, run.train, run.warned, run.setting, run.published),
        demo=read_demo(folder),
        threshold=passages.THRESHOLD,
        passages=[passages.read_passage(columns) for columns in run.evaluation["passages"]],
        last=_last_metrics(run),
        made=Making.of_record({**run.record, **found_by_evaluation}, run.config),
    )
    return str(path)


def _read_run(folder: epath.Path) -> _Run:
    metrics_file, evaluation_file = folder / METRICS, folder / EVALUATION
    rows = parse_lines(read_text(metrics_file), MetricsRow, metrics_file)
    remedy = f"run `electra evaluate` on {folder} to write it again"
    evaluation = parse_json(read_text(evaluation_file), Evaluation, evaluation_file, remedy=remedy)
    run_file = folder / RUN
    setting = {name: evaluation["setting"][name] for name in SettingRecord.__annotations__}
    return _Run(
        name=folder.resolve().name,
        train=by_step(rows, "train"),
        validation=by_step(rows, "validation"),
        warned=[row for row in rows if row.get("split") == "health"],
        evaluation=evaluation,
        record=parse_json(read_if_there(run_file) or "{}", dict[str, Any], run_file),
        config=read_if_there(folder / CONFIG),
        setting=Setting(**setting | {"differences": tuple(setting["differences"])}),
        published=published_curve(),
    )


def _held_out(run: _Run) -> dict[str, float]:
    """Return the numbers of the summary; NaN for those that were not recorded."""
    names = ("generator_accuracy", "discriminator_auc", "discriminator_recall", "discriminator_precision")
    values = {name: number(run.metrics, name) for name in (*names, "discriminator_accuracy", "unreplaced_share")}
    return values | {"most_frequent": _most_frequent(run)}


def _most_frequent(run: _Run) -> float:
    return number(run.evaluation.get("most_frequent_token", {}), "rate")


def _share_tiles(run: _Run) -> list[Tile]:
    rate, unreplaced = _most_frequent(run), number(run.metrics, "unreplaced_share")
    token = run.evaluation.get("most_frequent_token", {}).get("token", "?")
    # Title, metric, comparison, and the value of the comparison between 0 and 1.
    shares = [
        ("Discriminator AUC", "discriminator_auc", "0.5 is guessing, 1 is perfect", 0.5),
        ("Generator accuracy", "generator_accuracy", f"most frequent token “{token}”: {percent(rate)}", rate),
        (
            "Discriminator accuracy",
            "discriminator_accuracy",
            f"calling every token original: {percent(unreplaced)}",
            unreplaced,
        ),
        ("Recall", "discriminator_recall", "of the replaced tokens, flagged at 0.5", math.nan),
        (
            "Precision",
            "discriminator_precision",
            f"of the flagged, really replaced; flagging at random: {percent(1 - unreplaced)}",
            1 - unreplaced,
        ),
    ]
    tiles = []
    for title, name, beside, mark in shares:
        value = number(run.metrics, name)
        text = decimal(value) if name == "discriminator_auc" else percent(value)
        share, at = (x if math.isfinite(x) else None for x in (value, mark))
        tiles.append(Tile(title, text, beside, share, at, main=not tiles))
    return tiles


def _loss_tiles(run: _Run) -> list[Tile]:
    loss = number(run.metrics, "generator_loss")
    # exp would overflow if a loss has diverged, and a number of words would mean nothing then.
    choice = f": a choice among {math.exp(loss):,.1f} words" if loss < 50 else ""
    constant = decimal(constant_guess_loss(number(run.metrics, "unreplaced_share")))
    losses = [
        ("Generator loss", "generator_loss", f"nats per hidden token{choice}"),
        ("Discriminator loss", "discriminator_loss", f"nats per token; the same answer everywhere: {constant}"),
        ("Total loss", "loss", "the weighted sum that is trained on"),
    ]
    return [Tile(title, decimal(number(run.metrics, name)), beside) for title, name, beside in losses]


def _keys(run: _Run) -> list[tuple[str, str]]:
    keys = [
        ("validation", "validation (held out)"),
        ("train", "training"),
        ("baseline", "a baseline that needs no learning, named under each title"),
    ]
    return keys if run.setting.differences else [*keys, ("published", "the published run")]


def _charts(run: _Run) -> list[Figure]:
    steps = sorted({row["step"] for row in run.train + run.validation})
    ends, rate = steps[:1] + steps[-1:], _most_frequent(run)
    unreplaced = [(row["step"], number(row, "unreplaced_share")) for row in run.validation or run.train]
    constant = [(step, constant_guess_loss(share)) for step, share in unreplaced]
    guessing, frequent = [(step, 0.5) for step in ends], [(step, rate) for step in ends]
    # Title, metric, meaning of the dashed line, its points, and the format of values.
    charts: list[tuple[str, str, str, Sequence[tuple[float, float]], Callable[[float], str]]] = [
        ("Generator loss", "generator_loss", "", [], decimal),
        ("Discriminator loss", "discriminator_loss", "the same answer everywhere", constant, decimal),
        ("Discriminator AUC", "discriminator_auc", "guessing, 0.5", guessing, decimal),
        (
            "Generator accuracy",
            "generator_accuracy",
            f"always the most frequent token, {percent(rate)}",
            frequent,
            percent,
        ),
        ("Discriminator accuracy", "discriminator_accuracy", "calling every token original", unreplaced, percent),
        ("Recall of replaced tokens", "discriminator_recall", "", [], percent),
    ]
    return [_figure(run, *chart) for chart in charts]


def _figure(
    run: _Run,
    title: str,
    name: str,
    dashed: str,
    baseline: Sequence[tuple[float, float]],
    value_text: Callable[[float], str],
) -> Figure:
    last_step = max((row["step"] for row in run.train + run.validation), default=0)
    lines = [
        Series(dashed, "baseline", baseline),
        *published_series(name, run.setting, run.published, last_step),
        Series("training", "train", [(row["step"], number(row, name)) for row in run.train]),
        Series("validation", "validation", [(row["step"], number(row, name)) for row in run.validation]),
    ]
    finite = lines[-1].finite
    note = f"dashed: {dashed}" if dashed else "lower is better" if "loss" in name else "at a threshold of 0.5"
    return Figure(title, value_text(finite[-1][1]) if finite else "", note, line_chart(title, lines, value_text))


def _last_metrics(run: _Run) -> Table:
    shown: list[Mapping[str, Any]] = [run.metrics]
    header = ["", f"held-out, step {run.evaluation['step']:,}"]
    for split, rows in (("validation", run.validation), ("training", run.train)):
        if rows:
            shown.append(rows[-1])
            header.append(f"{split}, step {rows[-1]['step']:,}")
    names = dict.fromkeys(name for values in shown for name in values if name not in ("step", "split"))
    return Table(header, [[name.replace("_", " "), *(plain(values.get(name)) for values in shown)] for name in names])
