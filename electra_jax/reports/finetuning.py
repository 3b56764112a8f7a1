"""The results page of a fine-tuning: scores over seeds, learning curves, how the answers fall, the surest errors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from electra_jax.errors import UserError
from electra_jax.finetuning.results import PREDICTIONS, RESULTS
from electra_jax.reports.answers import answers_html, score
from electra_jax.reports.charts import Series, line_chart
from electra_jax.reports.errors import errors_html
from electra_jax.reports.page import (
    Rows,
    by_step,
    figure_html,
    keys_html,
    making_html,
    parse_lines,
    parse_object,
    read_if_there,
    read_text,
    verdict_html,
    write_page,
)
from electra_jax.reports.style import table_html, tile_html
from electra_jax.reports.summary import decimal, number
from electra_jax.tasks.original import choice

# What the page cannot do without.
_FIELDS = ("task", "kind", "main_metric", "num_examples", "seeds", "summary", "best_seed")
_STATISTICS = ("median", "mean", "std", "best")
# Endings of what question answering reports beside its scores: numbers of questions, and thresholds.
_NO_SCORES = ("total", "thresh")
_HEADS = {
    "classification": "a choice among its classes",
    "regression": "its values",
    "tagging": "a tag for each word",
    "question_answering": "the answer’s place in the text",
}


@dataclass(frozen=True)
class _Run:
    results: dict[str, Any]
    predictions: Rows
    train: dict[int, Rows]
    validation: dict[int, Rows]
    record: dict[str, Any]
    config: str
    rules: str

    @property
    def seeds(self) -> Rows:
        return self.results["seeds"]

    @property
    def main(self) -> str:
        return self.results["main_metric"]

    @property
    def best(self) -> dict[str, Any]:
        return next(seed for seed in self.seeds if seed["seed"] == self.results["best_seed"])

    @property
    def worked(self) -> Rows:
        return [seed for seed in self.seeds if seed["failed"] is None]


def write_finetune_report(model_dir: str | Path) -> Path:
    """Writes MODEL_DIR/report.html from the files that a fine-tuning left there.

    Reads results.json; and predictions.jsonl, seeds/*/metrics.jsonl, run.json, model.json and config.gin where they
    are. The page holds all that it needs; nothing is fetched when it is opened.

    Args:
      model_dir: the run's folder.

    Returns:
      The path of the page.

    Raises:
      UserError: results.json is missing, or a file is not what a run writes.
    """
    run = _read_run(Path(model_dir))
    path = Path(model_dir) / "report.html"
    write_page(path, f"ELECTRA fine-tuning: {run.results['task']}", _body(run))
    return path


def read_results(path: Path) -> dict[str, Any]:
    """A results.json as `electra finetune` writes it.

    Raises:
      UserError: it is missing, or lacks what a page needs.
    """
    results = parse_object(read_text(path), str(path))
    absent = [field for field in _FIELDS if field not in results]
    if absent or not results["seeds"]:
        raise UserError(f"{path} has no {(absent or ['seeds'])[0]!r}; run `electra finetune` to write it anew.")
    return results


def _read_run(folder: Path) -> _Run:
    results = read_results(folder / RESULTS)
    logs = {}
    for seed in results["seeds"]:
        path = folder / "seeds" / str(seed["seed"]) / "metrics.jsonl"
        logs[seed["seed"]] = parse_lines(read_if_there(path), path)
    run_file, predictions_file, model_file = (folder / name for name in ("run.json", PREDICTIONS, "model.json"))
    model = parse_object(read_if_there(model_file) or "{}", str(model_file))
    return _Run(
        results=results,
        predictions=parse_lines(read_if_there(predictions_file), predictions_file),
        train={seed: by_step(rows, "train") for seed, rows in logs.items()},
        validation={seed: by_step(rows, "validation") for seed, rows in logs.items()},
        record=parse_object(read_if_there(run_file) or "{}", str(run_file)),
        config=read_if_there(folder / "config.gin"),
        rules=_rules(model.get("facts", {}).get("task", {})),
    )


def _rules(task: Mapping[str, Any]) -> str:
    """Return whose rules the task follows; those of this project where none are recorded."""
    return choice.current_facts(task).get("rules", "standard")


def _body(run: _Run) -> str:
    results = run.results
    counts = [_counted(count, f"{name} example") for name, count in results["num_examples"].items()]
    facts = [_counted(len(run.seeds), "seed"), _origin(results), *counts, str(run.record.get("date", ""))]
    parts = [
        f'<header><h1>ELECTRA fine-tuning: {escape(str(results["task"]))}</h1><p class="sub">',
        escape(" · ".join(fact for fact in facts if fact)),
        f'</p></header><p class="summary">{escape(_summary(run))}</p>',
        _verdict(run),
        "<h2>Scores</h2>",
        _tiles(run),
        _score_table(run),
        "<h2>Learning</h2>",
        _curves(run),
    ]
    if run.predictions:
        spans_of = choice.tagging_rules(run.rules).spans_of
        parts.append(answers_html(results["kind"], run.predictions, run.best["metrics"], spans_of))
        parts.append(errors_html(results["kind"], run.predictions))
    else:
        parts.append(f'<h2>Answers</h2><p class="empty">There is no {PREDICTIONS} beside this page to show any.</p>')
    parts.append("<h2>How this run was made</h2>")
    parts.append(making_html({**run.record, **_remarks(results)}, run.config))
    parts.append(f"<footer>Written by ELECTRA-JAX from {RESULTS}, {PREDICTIONS} and the seeds’ logs.</footer>")
    return "\n".join(parts)


def _remarks(results: Mapping[str, Any]) -> dict[str, Any]:
    """What results.json says besides the scores that the page shows."""
    return {name: results[name] for name in ("skipped", "null_threshold") if results.get(name)}


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _origin(results: Mapping[str, Any]) -> str:
    source = results.get("init_from")
    return f"from {source}" if source else "from random weights"


def _summary(run: _Run) -> str:
    results = run.results
    steps = " or ".join(f"{count:,}" for count in sorted({seed["steps"] for seed in run.seeds}))
    what = _HEADS.get(results["kind"], "its answers")
    dev = results["num_examples"].get(results.get("split", "dev"), 0)
    return (
        f"An encoder {_origin(results)} and a new head learned {results['task']} ({what}) for {steps} steps with each "
        f"seed. Of every seed the checkpoint of highest {_name(run.main)} on {_counted(dev, 'dev example')} counts; a "
        "score chosen on the examples that it is measured on is a little too good."
    )


def _name(metric: str) -> str:
    return metric.replace("_", " ").replace("f1", "F1")


def _verdict(run: _Run) -> str:
    values = [seed["metrics"][run.main] for seed in run.worked]
    warnings = [
        f"Seed {seed['seed']} failed and is not averaged: {seed['failed']}." for seed in run.seeds if _bad(seed)
    ]
    if not values:
        return verdict_html("Every seed failed.", "There is no score to report; the model learned nothing.", warnings)
    median = score(run.results["summary"][run.main]["median"])
    if len(values) == 1:
        text = f"Its {_name(run.main)} is {median}; with one seed that worked, nothing is known of its spread."
    else:
        text = (
            f"Median {_name(run.main)} {median} over {len(values)} seeds, the lowest {score(min(values))}, the "
            f"highest {score(max(values))}."
        )
    head = f"{len(warnings)} of {len(run.seeds)} seeds failed." if warnings else "Every seed worked."
    return verdict_html(head if len(run.seeds) > 1 else "It worked.", text, warnings)


def _bad(seed: Mapping[str, Any]) -> bool:
    return seed["failed"] is not None


def _tiles(run: _Run) -> str:
    summary = run.results["summary"]
    tiles = []
    for name, found in summary.items():
        if name.endswith(_NO_SCORES):
            continue
        if name != run.main:
            beside = f"median; best {score(found['best'])}"
            tiles.append(tile_html(_name(name), score(found["median"]), beside, share=None, mark=None, main=False))
            continue
        count = found["n"]
        spread = f"median of {_counted(count, 'seed')}; mean {score(found['mean'])}"
        if count > 1:
            spread += f" ± {score(found['std'])}"
        best = f"; best {score(found['best'])}, seed {run.best['seed']} at step {run.best['best_step']:,}"
        share = found["median"] / 100 if 0 <= found["median"] <= 100 else None
        guess, mark = _guessing(run)
        tile = tile_html(
            _name(name), score(found["median"]), f"{spread}{best}{guess}", share=share, mark=mark, main=True
        )
        tiles.insert(0, tile)
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _guessing(run: _Run) -> tuple[str, float | None]:
    """What always answering the most frequent class scores, where that can be said: in words, and as a share."""
    if run.main != "accuracy" or not run.predictions or run.results["kind"] != "classification":
        return "", None
    gold = [record["gold"] for record in run.predictions]
    share = max(map(gold.count, set(gold))) / len(gold)
    return f"; always the most frequent class: {score(100 * share)}", share


def _score_table(run: _Run) -> str:
    names = list(run.seeds[0]["metrics"])
    rows = []
    for seed in run.seeds:
        flag = ", failed" if _bad(seed) else ", the best" if seed is run.best and len(run.seeds) > 1 else ""
        cells = [score(seed["metrics"].get(name)) for name in names]
        rows.append([f"seed {seed['seed']}, step {seed['best_step']:,} of {seed['steps']:,}{flag}", *cells])
    summary = run.results["summary"]
    if summary:
        for statistic in _STATISTICS:
            label = "standard deviation" if statistic == "std" else statistic
            rows.append([label, *(score(summary.get(name, {}).get(statistic)) for name in names)])
    return table_html(["", *map(_name, names)], rows)


def _curves(run: _Run) -> str:
    others = [seed["seed"] for seed in run.seeds if seed is not run.best]
    order = [*others, run.best["seed"]]
    styles = {seed["seed"]: "failed" if _bad(seed) else "train" for seed in run.seeds}
    if not _bad(run.best):
        styles[run.best["seed"]] = "validation"

    def lines(logs: Mapping[int, Rows], name: str) -> list[Series]:
        return [Series(f"seed {s}", styles[s], [(row["step"], number(row, name)) for row in logs[s]]) for s in order]

    # results.json holds the main metric too, for a folder that lost its logs.
    curves = {seed["seed"]: run.validation[seed["seed"]] or seed.get("curve", []) for seed in run.seeds}
    charts = [
        _chart("Training loss", "lower is better", lines(run.train, "loss"), decimal),
        _chart(f"Dev {_name(run.main)}", "higher is better", lines(curves, run.main), score),
    ]
    keys = [("validation", "best seed"), ("train", "other seeds"), ("failed", "failed seeds")]
    used = [key for key in keys if key[0] in styles.values()]
    return f'{keys_html(used)}<div class="charts">{"".join(charts)}</div>'


def _chart(title: str, note: str, lines: Sequence[Series], value_text: Callable[[float], str]) -> str:
    finite = lines[-1].finite
    last = f"best seed ends at {value_text(finite[-1][1])}" if finite and lines[-1].style == "validation" else ""
    return figure_html(title, last, note, line_chart(title, lines, value_text=value_text))
