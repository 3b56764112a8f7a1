"""The report of a pre-training run: one HTML page that can be kept, mailed and printed."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from electra_jax.errors import UserError
from electra_jax.plots import Series, line_chart
from electra_jax.report_passages import LEGEND, passage_html
from electra_jax.report_style import page_html, table_html, tile_html
from electra_jax.report_summary import (
    constant_guess_loss,
    decimal,
    headline,
    learning_text,
    number,
    percent,
    summary_text,
    warnings,
)

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class _Run:
    name: str
    train: Rows
    validation: Rows
    evaluation: dict[str, Any]
    record: dict[str, Any]
    config: str


def write_report(model_dir: str) -> str:
    """Writes MODEL_DIR/report.html from the files that a pre-training run left there.

    Reads metrics.jsonl and evaluation.json, and run.json and config.gin where they are. The page holds all that
    it needs: style, curves (SVG) and text; nothing is fetched when it is opened.

    Args:
      model_dir: the run's folder.

    Returns:
      The path of the page.

    Raises:
      UserError: metrics.jsonl or evaluation.json is missing or is not what a run writes.
    """
    run = _read_run(Path(model_dir))
    path = Path(model_dir) / "report.html"
    partial = path.with_suffix(".html.partial")
    # A vocabulary learned from broken text can hold lone surrogates, which UTF-8 has no bytes for.
    partial.write_text(page_html(f"ELECTRA pre-training: {run.name}", _body(run)), "utf-8", "xmlcharrefreplace")
    os.replace(partial, path)
    return str(path)


def _read_run(folder: Path) -> _Run:
    rows = _read_metrics(folder / "metrics.jsonl")
    evaluation_file = folder / "evaluation.json"
    evaluation = _parse(_read(evaluation_file), evaluation_file, None)
    for field in ("step", "metrics", "passages"):
        if field not in evaluation:
            raise UserError(f"{evaluation_file} has no {field!r}; run `electra evaluate` on {folder} to write it anew.")
    run_file, config_file = folder / "run.json", folder / "config.gin"
    return _Run(
        name=folder.resolve().name,
        train=_by_step(rows, "train"),
        validation=_by_step(rows, "validation"),
        evaluation=evaluation,
        record=_parse(_read(run_file), run_file, None) if run_file.exists() else {},
        config=_read(config_file) if config_file.exists() else "",
    )


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        verb = "evaluate" if path.name == "evaluation.json" else "pretrain"
        raise UserError(
            f"There is no {path.name} in {path.parent}, and the report is made from it; run `electra {verb}` with "
            "this MODEL_DIR first."
        ) from None


def _parse(text: str, path: Path, line: int | None) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        where = path if line is None else f"{path}, line {line}"
        raise UserError(f"{where} is not JSON ({error.msg}); restore the file or make it anew.") from None
    if not isinstance(value, dict):
        where = path if line is None else f"{path}, line {line}"
        raise UserError(f"{where} holds a {type(value).__name__} instead of an object; make the file anew.")
    return value


def _read_metrics(path: Path) -> Rows:
    lines = _read(path).split("\n")
    # A run that was killed while it wrote leaves half a line at the end, without its newline.
    return [_parse(text, path, i) for i, text in enumerate(lines[:-1], start=1) if text.strip()]


def _by_step(rows: Rows, split: str) -> Rows:
    """The rows of one split by rising step; of a step that was run twice (resumed) the later line."""
    latest = {row["step"]: row for row in rows if row.get("split") == split}
    return [latest[step] for step in sorted(latest)]


def _body(run: _Run) -> str:
    record, evaluation = run.record, run.evaluation
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
            "<h2>Spot the fake</h2>",
            LEGEND,
            f'<div class="passages">{"".join(map(passage_html, evaluation["passages"]))}</div>',
            "<h2>The last numbers</h2>",
            _last_metrics(run),
            "<h2>How this run was made</h2>",
            _making(run),
            "<footer>Written by ELECTRA-JAX from metrics.jsonl and evaluation.json.</footer>",
        ]
    )


def _verdict(run: _Run) -> str:
    found, learned = warnings(run.evaluation, run.validation), escape(learning_text(run.validation))
    title = f"<b>{headline(found, number(run.evaluation['metrics'], 'discriminator_auc'))}</b> {learned}"
    if found:
        items = "".join(f"<li>{escape(text)}</li>" for text in found)
        return f'<div class="verdict warn">{title}<ul>{items}</ul></div>'
    return f'<div class="verdict">{title}</div>'


def _share_tile(metrics: Mapping[str, Any], title: str, name: str, beside: str, mark: float, *, main: bool) -> str:
    value = number(metrics, name)
    text = decimal(value) if name == "discriminator_auc" else percent(value)
    share, at = (x if math.isfinite(x) else None for x in (value, mark))
    return tile_html(title, text, beside, share=share, mark=at, main=main)


def _loss_tile(metrics: Mapping[str, Any], title: str, name: str, beside: str) -> str:
    return tile_html(title, decimal(number(metrics, name)), beside, share=None, mark=None, main=False)


def _tiles(evaluation: Mapping[str, Any]) -> str:
    metrics = evaluation["metrics"]
    frequent = evaluation.get("most_frequent_token", {})
    rate, unreplaced = number(frequent, "rate"), number(metrics, "unreplaced_share")

    loss = number(metrics, "generator_loss")
    # exp overflows where a loss has blown up; no word is offered for such a run.
    choice = f": a choice among {math.exp(loss):,.1f} words" if loss < 50 else ""
    return "".join(
        [
            '<div class="tiles">',
            _share_tile(
                metrics, "Discriminator AUC", "discriminator_auc", "0.5 is guessing, 1 is perfect", 0.5, main=True
            ),
            _share_tile(
                metrics,
                "Generator accuracy",
                "generator_accuracy",
                f"most frequent token “{frequent.get('token', '?')}”: {percent(rate)}",
                rate,
                main=False,
            ),
            _share_tile(
                metrics,
                "Discriminator accuracy",
                "discriminator_accuracy",
                f"calling every token original: {percent(unreplaced)}",
                unreplaced,
                main=False,
            ),
            _share_tile(
                metrics,
                "Recall",
                "discriminator_recall",
                "of the replaced tokens, flagged at 0.5",
                math.nan,
                main=False,
            ),
            _share_tile(
                metrics,
                "Precision",
                "discriminator_precision",
                f"of the flagged, really replaced; flagging at random: {percent(1 - unreplaced)}",
                1 - unreplaced,
                main=False,
            ),
            _loss_tile(
                metrics,
                "Generator loss",
                "generator_loss",
                f"nats per hidden token{choice}",
            ),
            _loss_tile(
                metrics,
                "Discriminator loss",
                "discriminator_loss",
                f"nats per token; the same answer everywhere: {decimal(constant_guess_loss(unreplaced))}",
            ),
            _loss_tile(metrics, "Total loss", "loss", "the weighted sum that is trained on"),
            "</div>",
        ]
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
    keys = "".join(
        f'<span><svg viewBox="0 0 30 10" aria-hidden="true"><path class="line {style}" d="M0,5L30,5"/></svg>'
        f"{text}</span>"
        for style, text in (
            ("validation", "validation (held out)"),
            ("train", "training"),
            ("baseline", "what needs no learning, named under each title"),
        )
    )
    return f'<p class="keys">{keys}</p><div class="charts">{"".join(charts)}</div>'


def _chart(
    run: _Run, title: str, name: str, dashed: str, baseline: Series | None, value_text: Callable[[float], str]
) -> str:
    lines = [
        *([baseline] if baseline else []),
        Series("training", "train", [(row["step"], number(row, name)) for row in run.train]),
        Series("validation", "validation", [(row["step"], number(row, name)) for row in run.validation]),
    ]
    finite = lines[-1].finite
    last = value_text(finite[-1][1]) if finite else ""
    note = f"dashed: {dashed}" if dashed else "lower is better" if "loss" in name else "at a threshold of 0.5"
    return (
        f'<figure class="card"><figcaption><h3>{escape(title)}</h3><span class="last">{last}</span>'
        "</figcaption>"
        f'<p class="note">{escape(note)}</p>{line_chart(title, lines, value_text=value_text)}</figure>'
    )


def _last_metrics(run: _Run) -> str:
    shown: list[Mapping[str, Any]] = [run.evaluation["metrics"]]
    header = ["", f"held-out, step {run.evaluation['step']:,}"]
    for split, rows in (("validation", run.validation), ("training", run.train)):
        if rows:
            shown.append(rows[-1])
            header.append(f"{split}, step {rows[-1]['step']:,}")
    names = dict.fromkeys(name for values in shown for name in values if name not in ("step", "split"))
    rows = [[name.replace("_", " "), *(_plain(values.get(name)) for values in shown)] for name in names]
    return table_html(header, rows)


def _plain(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:#.4g}"


def _making(run: _Run) -> str:
    facts = {**run.record, **{k: v for k, v in run.evaluation.items() if k not in ("metrics", "passages")}}
    command = facts.pop("command", "")
    text = command if isinstance(command, str) else " ".join(map(str, command))
    parts = [f"<details><summary>Command, machine, versions</summary>{_pre(text)}{_facts(facts)}</details>"]
    if run.config:
        parts.append(f"<details><summary>Configuration (config.gin)</summary>{_pre(run.config)}</details>")
    return "".join(parts)


def _pre(text: str) -> str:
    return f"<pre>{escape(text)}</pre>" if text else ""


def _facts(facts: Mapping[str, Any]) -> str:
    """A record of any shape as nested tables of two columns."""
    rows = "".join(f"<tr><th>{escape(str(name))}</th><td>{_fact(value)}</td></tr>" for name, value in facts.items())
    return f"<table><tbody>{rows}</tbody></table>"


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return _facts(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "<br>".join(_fact(item) for item in value)
    return f"<code>{escape(_plain(value))}</code>"
