"""The report of a pre-training run: one HTML page that can be kept, mailed and printed."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from etils import epath

from electra_jax.errors import UserError
from electra_jax.files import path_of
from electra_jax.monitoring.health_checks import Setting, constant_guess_loss
from electra_jax.monitoring.watch import published_curve
from electra_jax.reports.charts import Series, line_chart
from electra_jax.reports.demo import read_comparison
from electra_jax.reports.health import health_html, published_series, stored_setting
from electra_jax.reports.page import (
    Rows,
    by_step,
    figure_html,
    keys_html,
    making_html,
    parse_lines,
    parse_object,
    plain,
    read_if_there,
    read_text,
    verdict_html,
    write_page,
)
from electra_jax.reports.passages import LEGEND, passage_html
from electra_jax.reports.style import table_html, tile_html
from electra_jax.reports.summary import decimal, headline, learning_text, number, percent, summary_text, warnings


@dataclass(frozen=True)
class _Run:
    name: str
    train: Rows
    validation: Rows
    warned: Rows
    evaluation: dict[str, Any]
    record: dict[str, Any]
    config: str
    comparison: str

    @property
    def setting(self) -> Setting | None:
        return stored_setting(self.evaluation, self.record)


def write_report(model_dir: str) -> str:
    """Writes MODEL_DIR/report.html from the files that a pre-training run left there.

    Reads metrics.jsonl and evaluation.json; and run.json, config.gin and the results of two fine-tunings
    (`demo_comparison.read_comparison`) where they are. The page holds all that it needs: style, curves (SVG) and
    text; nothing is fetched when it is opened.

    Args:
      model_dir: the run's folder.

    Returns:
      The path of the page.

    Raises:
      UserError: metrics.jsonl or evaluation.json is missing or is not what a run writes.
    """
    folder = path_of(model_dir)
    run = _read_run(folder)
    path = folder / "report.html"
    write_page(path, f"ELECTRA pre-training: {run.name}", _body(run))
    return str(path)


def _read_run(folder: epath.Path) -> _Run:
    metrics_file, evaluation_file = folder / "metrics.jsonl", folder / "evaluation.json"
    rows = parse_lines(read_text(metrics_file), metrics_file)
    evaluation = parse_object(read_text(evaluation_file), str(evaluation_file))
    for field in ("step", "metrics", "passages"):
        if field not in evaluation:
            raise UserError(f"{evaluation_file} has no {field!r}; run `electra evaluate` on {folder} to write it anew.")
    run_file = folder / "run.json"
    return _Run(
        name=folder.resolve().name,
        train=by_step(rows, "train"),
        validation=by_step(rows, "validation"),
        warned=[row for row in rows if row.get("split") == "health"],
        evaluation=evaluation,
        record=parse_object(read_if_there(run_file) or "{}", str(run_file)),
        config=read_if_there(folder / "config.gin"),
        comparison=read_comparison(folder),
    )


def _body(run: _Run) -> str:
    record, evaluation = run.record, run.evaluation
    found_by_evaluation = {name: value for name, value in evaluation.items() if name not in ("metrics", "passages")}
    facts = [f"{evaluation['step']:,} steps", str(evaluation.get("corpus", "")), str(record.get("date", ""))]
    return "\n".join(
        [
            f'<header><h1>ELECTRA pre-training: {escape(run.name)}</h1><p class="sub">',
            escape(" · ".join(fact for fact in facts if fact)),
            f'</p></header><p class="summary">{escape(summary_text(evaluation))}</p>',
            _verdict(run),
            "<h2>Held-out text</h2>",
            _tiles(evaluation),
            "<h2>Learning</h2>",
            _curves(run),
            health_html(run.train + run.validation, run.warned, run.setting, published_curve()),
            run.comparison,
            "<h2>Spot the fake</h2>",
            LEGEND,
            f'<div class="passages">{"".join(map(passage_html, evaluation["passages"]))}</div>',
            "<h2>The last numbers</h2>",
            _last_metrics(run),
            "<h2>How this run was made</h2>",
            making_html({**run.record, **found_by_evaluation}, run.config),
            "<footer>Written by ELECTRA-JAX from metrics.jsonl and evaluation.json.</footer>",
        ]
    )


def _verdict(run: _Run) -> str:
    found, learned = warnings(run.evaluation, run.validation), learning_text(run.validation)
    return verdict_html(headline(found, number(run.evaluation["metrics"], "discriminator_auc")), learned, found)


def _tiles(evaluation: Mapping[str, Any]) -> str:
    metrics = evaluation["metrics"]
    frequent = evaluation.get("most_frequent_token", {})
    rate, unreplaced = number(frequent, "rate"), number(metrics, "unreplaced_share")
    most_frequent = f"most frequent token “{frequent.get('token', '?')}”: {percent(rate)}"
    random_flags = f"of the flagged, really replaced; flagging at random: {percent(1 - unreplaced)}"
    # Name, metric, what to compare it with, and where that stands between 0 and 1.
    shares = [
        ("Discriminator AUC", "discriminator_auc", "0.5 is guessing, 1 is perfect", 0.5),
        ("Generator accuracy", "generator_accuracy", most_frequent, rate),
        (
            "Discriminator accuracy",
            "discriminator_accuracy",
            f"calling every token original: {percent(unreplaced)}",
            unreplaced,
        ),
        ("Recall", "discriminator_recall", "of the replaced tokens, flagged at 0.5", math.nan),
        ("Precision", "discriminator_precision", random_flags, 1 - unreplaced),
    ]
    tiles = [_share_tile(metrics, *share, main=position == 0) for position, share in enumerate(shares)]
    return f'<div class="tiles">{"".join(tiles)}{_loss_tiles(metrics, unreplaced)}</div>'


def _share_tile(metrics: Mapping[str, Any], title: str, name: str, beside: str, mark: float, *, main: bool) -> str:
    value = number(metrics, name)
    text = decimal(value) if name == "discriminator_auc" else percent(value)
    share, at = (x if math.isfinite(x) else None for x in (value, mark))
    return tile_html(title, text, beside, share=share, mark=at, main=main)


def _loss_tiles(metrics: Mapping[str, Any], unreplaced: float) -> str:
    loss = number(metrics, "generator_loss")
    # exp overflows where a loss has blown up; no word is offered for such a run.
    choice = f": a choice among {math.exp(loss):,.1f} words" if loss < 50 else ""
    constant = f"nats per token; the same answer everywhere: {decimal(constant_guess_loss(unreplaced))}"
    losses = [
        ("Generator loss", "generator_loss", f"nats per hidden token{choice}"),
        ("Discriminator loss", "discriminator_loss", constant),
        ("Total loss", "loss", "the weighted sum that is trained on"),
    ]
    return "".join(
        tile_html(title, decimal(number(metrics, name)), beside, share=None, mark=None, main=False)
        for title, name, beside in losses
    )


def _curves(run: _Run) -> str:
    validation_or_train = run.validation or run.train
    steps = sorted({row["step"] for row in run.train + run.validation})
    rate = number(run.evaluation.get("most_frequent_token", {}), "rate")

    def constant(name: str, value: float) -> Series:
        return Series(name, "baseline", [(step, value) for step in steps[:1] + steps[-1:]])

    unreplaced = [(row["step"], number(row, "unreplaced_share")) for row in validation_or_train]
    charts = [
        _chart(run, "Generator loss", "generator_loss", "", None, decimal),
        _chart(
            run,
            "Discriminator loss",
            "discriminator_loss",
            "the same answer everywhere",
            Series(
                "constant guess",
                "baseline",
                [(step, constant_guess_loss(share)) for step, share in unreplaced],
            ),
            decimal,
        ),
        _chart(
            run,
            "Discriminator AUC",
            "discriminator_auc",
            "guessing, 0.5",
            constant("guessing", 0.5),
            decimal,
        ),
        _chart(
            run,
            "Generator accuracy",
            "generator_accuracy",
            f"always the most frequent token, {percent(rate)}",
            constant("most frequent token", rate),
            percent,
        ),
        _chart(
            run,
            "Discriminator accuracy",
            "discriminator_accuracy",
            "calling every token original",
            Series("every token original", "baseline", unreplaced),
            percent,
        ),
        _chart(run, "Recall of replaced tokens", "discriminator_recall", "", None, percent),
    ]
    keys = (
        ("validation", "validation (held out)"),
        ("train", "training"),
        ("baseline", "what needs no learning, named under each title"),
        *([] if run.setting is None or run.setting.unlike_published else [("published", "the published run")]),
    )
    return f'{keys_html(keys)}<div class="charts">{"".join(charts)}</div>'


def _chart(
    run: _Run, title: str, name: str, dashed: str, baseline: Series | None, value_text: Callable[[float], str]
) -> str:
    last_step = max((row["step"] for row in run.train + run.validation), default=0)
    lines = [
        *([baseline] if baseline else []),
        *published_series(name, run.setting, published_curve(), last_step),
        Series("training", "train", [(row["step"], number(row, name)) for row in run.train]),
        Series("validation", "validation", [(row["step"], number(row, name)) for row in run.validation]),
    ]
    finite = lines[-1].finite
    last = value_text(finite[-1][1]) if finite else ""
    note = f"dashed: {dashed}" if dashed else "lower is better" if "loss" in name else "at a threshold of 0.5"
    return figure_html(title, last, note, line_chart(title, lines, value_text=value_text))


def _last_metrics(run: _Run) -> str:
    shown: list[Mapping[str, Any]] = [run.evaluation["metrics"]]
    header = ["", f"held-out, step {run.evaluation['step']:,}"]
    for split, rows in (("validation", run.validation), ("training", run.train)):
        if rows:
            shown.append(rows[-1])
            header.append(f"{split}, step {rows[-1]['step']:,}")
    names = dict.fromkeys(name for values in shown for name in values if name not in ("step", "split"))
    rows = [[name.replace("_", " "), *(plain(values.get(name)) for values in shown)] for name in names]
    return table_html(header, rows)
