"""Write the report of a fine-tuning: scores over seeds, learning curves, answers, and the most confident errors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from electra_jax.config.selection import selection_of
from electra_jax.errors import UserError
from electra_jax.json_files import parse_json, with_nan
from electra_jax.monitoring.metrics_file import Rows, by_step, parse_lines, read_rows
from electra_jax.reports.answers import read_answers
from electra_jax.reports.charts import Figure, Series, line_chart
from electra_jax.reports.errors import read_errors
from electra_jax.reports.page import (
    Making,
    Table,
    Tile,
    Verdict,
    counted,
    decimal,
    number,
    read_if_there,
    read_text,
    score,
    write_page,
)
from electra_jax.run_directory import CONFIG, METRICS, MODEL, PREDICTIONS, REPORT, RESULTS, RUN, SEEDS
from electra_jax.tasks.long_texts import CutCount
from electra_jax.tasks.original import choice


class SeedResults(TypedDict):
    """Declare the fields of a seed that a page reads; a score that is NaN is null in the file."""

    seed: int
    steps: int
    metrics: dict[str, float | None]
    failed: str | None


class Statistics(TypedDict):
    """Declare the statistics of a score over the seeds that are read."""

    median: float | None
    n: int


class Results(TypedDict):
    """The fields of results.json that a page, or the GLUE average, requires."""

    task: str
    kind: str
    main_metric: str
    num_examples: dict[str, int]
    seeds: list[SeedResults]
    summary: dict[str, Statistics]
    num_failed: int
    best_seed: int


class TaskFacts(TypedDict, total=False):
    """Declare the facts of a model.json that a page reads."""

    task: dict[str, Any]


class ModelFacts(TypedDict, total=False):
    """Declare the fields of a model.json that a page reads."""

    facts: TaskFacts


_STATISTICS = {"median": "median", "mean": "mean", "std": "standard deviation", "best": "best"}
# Endings of metrics of question answering that are no scores: numbers of questions, and thresholds.
_NO_SCORES = ("total", "thresh")
_HEADS = {
    "classification": "a choice among its classes",
    "multi_label_classification": "any number of its labels",
    "multiple_choice": "a score for each choice",
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
    metric: str

    @property
    def seeds(self) -> Rows:
        return self.results["seeds"]

    @property
    def main(self) -> str:
        return self.results["main_metric"]

    @property
    def split(self) -> str:
        """The split that is reported; earlier versions reported only the dev split."""
        return self.results.get("split", "dev")

    @property
    def best(self) -> dict[str, Any]:
        return next(seed for seed in self.seeds if seed["seed"] == self.results["best_seed"])


def write_finetune_report(model_dir: str | Path) -> Path:
    """Write MODEL_DIR/report.html from the files that a fine-tuning left there.

    Reads results.json; and predictions.jsonl, seeds/*/metrics.jsonl, run.json, model.json and config.gin if they exist.
    The page contains everything that it needs; nothing is fetched when it is opened.

    Args:
        model_dir: the run directory.

    Returns:
        The path of the page.

    Raises:
        UserError: if results.json is missing, or a file is not one that a run writes.
    """
    run = _read_run(Path(model_dir))
    path, results, kind = Path(model_dir) / REPORT, run.results, run.results["kind"]
    # Retrieval gives no answer to a single pair, a similarity is a value, and a prompt gives a class.
    records = [] if kind == "retrieval" else run.predictions
    kind = {"similarity": "regression", "prompt": "classification"}.get(kind, kind)
    spans_of = choice.tagging_rules(run.rules).spans_of
    seed_styles = _seed_styles(run)
    # Facts in results.json other than the scores.
    remarks = {name: results[name] for name in ("skipped", "null_threshold") if results.get(name)}
    write_page(
        path,
        "finetuning.html",
        task=str(results["task"]),
        facts=_facts(run),
        origin=_origin(results),
        what=_HEADS.get(kind, "its answers"),
        steps=" or ".join(f"{count:,}" for count in sorted({seed["steps"] for seed in run.seeds})),
        metric=_name(run.main),
        selection=selection_of(results),
        split=run.split,
        num_scored=results["num_examples"].get(run.split, 0),
        outcome=_verdict(run),
        figures=_tiles(run),
        scores=_score_table(run),
        other_scores=_other_scores(run),
        chart_keys=_keys(seed_styles),
        charts=_charts(run, seed_styles),
        answers=read_answers(kind, records, run.best["metrics"], spans_of) if records else None,
        errors=read_errors(kind, records, run.metric) if records else None,
        made=Making.of_record({**run.record, **remarks}, run.config),
        results_file=RESULTS,
        predictions_file=PREDICTIONS,
    )
    return path


def read_results(path: Path) -> dict[str, Any]:
    """Read a results.json that `electra finetune` wrote.

    Raises:
        UserError: if the file is missing, or lacks a field that a page requires.
    """
    remedy = "run `electra finetune` to write it again"
    results = with_nan(parse_json(read_text(path), Results, path, remedy=remedy))
    missing = [seed["seed"] for seed in results["seeds"] if results["main_metric"] not in seed["metrics"]]
    if missing:
        raise UserError(f"{path} has no {results['main_metric']} of seed {missing[0]}: {remedy}")
    if results["best_seed"] not in [seed["seed"] for seed in results["seeds"]]:
        raise UserError(f"{path} has no seed {results['best_seed']}, which it calls the best: {remedy}")
    return results


def _read_run(folder: Path) -> _Run:
    results = read_results(folder / RESULTS)
    logs = {seed["seed"]: read_rows(folder / SEEDS / str(seed["seed"]) / METRICS) for seed in results["seeds"]}
    run_file, model_file = folder / RUN, folder / MODEL
    model = parse_json(read_if_there(model_file) or "{}", ModelFacts, model_file)
    return _Run(
        results=results,
        predictions=parse_lines(read_if_there(folder / PREDICTIONS), dict[str, Any], folder / PREDICTIONS),
        train={seed: by_step(rows, "train") for seed, rows in logs.items()},
        validation={seed: by_step(rows, "validation") for seed, rows in logs.items()},
        record=parse_json(read_if_there(run_file) or "{}", dict[str, Any], run_file),
        config=read_if_there(folder / CONFIG),
        # A folder that lost its model is read by this project's rules and SQuAD's metric.
        **{"rules": "standard", "metric": "squad"} | _task_facts(model),
    )


def _task_facts(model: Mapping[str, Any]) -> dict[str, str]:
    """Return the rules of a model's task and the metric that compares its answers, if they are recorded."""
    facts = choice.current_facts(model.get("facts", {}).get("task", {}))
    return {name: facts[name] for name in ("rules", "metric") if name in facts}


def _facts(run: _Run) -> list[str]:
    counts = [counted(count, f"{name} example") for name, count in run.results["num_examples"].items()]
    return [counted(len(run.seeds), "seed"), _origin(run.results), *counts, str(run.record.get("date", ""))]


def _origin(results: Mapping[str, Any]) -> str:
    source = results.get("init_from")
    return f"from {source}" if source else "from random weights"


def _name(metric: str) -> str:
    return metric.replace("_", " ").replace("f1", "F1")


def _verdict(run: _Run) -> Verdict:
    values = [seed["metrics"][run.main] for seed in run.seeds if not _failed(seed)]
    failures = [
        f"Seed {seed['seed']} failed and is not averaged: {seed['failed']}." for seed in run.seeds if _failed(seed)
    ]
    warnings = failures + [
        f"{name}: {CutCount(**count)}." for name, count in run.results.get("cut", {}).items() if count["texts"]
    ]
    if not values:
        return Verdict("Every seed failed.", "There is no score to report; the model learned nothing.", warnings)
    median = score(run.results["summary"][run.main]["median"])
    if len(values) == 1:
        text = f"Its {_name(run.main)} is {median}; with one seed that worked, nothing is known of its spread."
    else:
        text = (
            f"Median {_name(run.main)} {median} over {len(values)} seeds, the lowest {score(min(values))}, the "
            f"highest {score(max(values))}."
        )
    head = f"{len(failures)} of {len(run.seeds)} seeds failed." if failures else "Every seed worked."
    return Verdict(head if len(run.seeds) > 1 else "It worked.", text, warnings)


def _failed(seed: Mapping[str, Any]) -> bool:
    return seed["failed"] is not None


def _tiles(run: _Run) -> list[Tile]:
    tiles = []
    for name, found in run.results["summary"].items():
        if name == run.main:
            tiles.insert(0, _main_tile(run, found))
        elif not name.endswith(_NO_SCORES):
            tiles.append(Tile(_name(name), score(found["median"]), f"median; best {score(found['best'])}"))
    return tiles


def _main_tile(run: _Run, found: Mapping[str, Any]) -> Tile:
    spread = f"median of {counted(found['n'], 'seed')}; mean {score(found['mean'])}"
    if found["n"] > 1:
        spread += f" ± {score(found['std'])}"
    best = f"best {score(found['best'])}, seed {run.best['seed']} at step {run.best['best_step']:,}"
    share = found["median"] / 100 if 0 <= found["median"] <= 100 else None
    mark = _most_frequent_share(run)
    guess = "" if mark is None else f"; always the most frequent class: {score(100 * mark)}"
    return Tile(_name(run.main), score(found["median"]), f"{spread}; {best}{guess}", share, mark, main=True)


def _most_frequent_share(run: _Run) -> float | None:
    """Return the accuracy of always answering the most frequent class; None if it does not apply or is unknown."""
    if run.main != "accuracy" or not run.predictions or run.results["kind"] != "classification":
        return None
    gold = [record["gold"] for record in run.predictions]
    return max(map(gold.count, set(gold))) / len(gold)


def _score_table(run: _Run) -> Table:
    names = list(run.seeds[0]["metrics"])
    rows = []
    for seed in run.seeds:
        flag = ", failed" if _failed(seed) else ", the best" if seed is run.best and len(run.seeds) > 1 else ""
        cells = [score(seed["metrics"].get(name)) for name in names]
        rows.append([f"seed {seed['seed']}, step {seed['best_step']:,} of {seed['steps']:,}{flag}", *cells])
    summary = run.results["summary"]
    if summary:
        for statistic, label in _STATISTICS.items():
            rows.append([label, *(score(summary.get(name, {}).get(statistic)) for name in names)])
    return Table(["", *map(_name, names)], rows)


def _other_scores(run: _Run) -> list[tuple[str, Table]]:
    """Return a title and a table of statistics for each split that is scored besides the one that is reported."""
    tables = []
    for split, found in run.results.get("other_splits", {}).items():
        rows = [
            [label, *(score(values.get(statistic)) for values in found.values())]
            for statistic, label in _STATISTICS.items()
        ]
        title = f"{counted(run.results['num_examples'].get(split, 0), f'{split} example')}"
        tables.append((title, Table(["", *map(_name, found)], rows)))
    return tables


def _seed_styles(run: _Run) -> dict[int, str]:
    """Return the style of each seed's line, in the order of drawing: the best seed last, on top."""
    others = {seed["seed"]: "failed" if _failed(seed) else "train" for seed in run.seeds if seed is not run.best}
    return others | {run.best["seed"]: "failed" if _failed(run.best) else "validation"}


def _keys(seed_styles: Mapping[int, str]) -> list[tuple[str, str]]:
    keys = [("validation", "best seed"), ("train", "other seeds"), ("failed", "failed seeds")]
    return [key for key in keys if key[0] in seed_styles.values()]


def _charts(run: _Run, seed_styles: Mapping[int, str]) -> list[Figure]:
    def lines(logs: Mapping[int, Rows], name: str) -> list[Series]:
        return [
            Series(f"seed {seed}", style, [(row["step"], number(row, name)) for row in logs[seed]])
            for seed, style in seed_styles.items()
        ]

    # results.json also holds the curve of the main metric, for a folder that lost its logs.
    curves = {seed["seed"]: run.validation[seed["seed"]] or seed.get("curve", []) for seed in run.seeds}
    return [
        _figure("Training loss", "lower is better", lines(run.train, "loss"), decimal),
        _figure(f"Dev {_name(run.main)}", "higher is better", lines(curves, run.main), score),
    ]


def _figure(title: str, note: str, lines: Sequence[Series], value_text: Callable[[float], str]) -> Figure:
    finite = lines[-1].finite
    last = f"best seed ends at {value_text(finite[-1][1])}" if finite and lines[-1].style == "validation" else ""
    return Figure(title, last, note, line_chart(title, lines, value_text))
