"""The results page of fine-tuning: numbers are those of the files, errors the surest, and no text breaks it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from electra_jax.errors import UserError
from electra_jax.finetuning.results import summary
from electra_jax.reports.answers import confusion
from electra_jax.reports.charts import scatter_chart
from electra_jax.reports.demo import Scores, read_demo, scores_separated
from electra_jax.reports.errors import ranked_errors, read_errors
from electra_jax.reports.finetuning import write_finetune_report
from electra_jax.reports.page import render
from support.pages import Page

EVIL = "</p><script>alert(\"&amp;')</script><img src=x onerror=y>"


def seed(number: int, value: float, *, metric: str = "accuracy", failed: str | None = None, **more: Any) -> Any:
    curve = [{"step": 10, metric: value / 2}, {"step": 20, metric: value}]
    metrics = {metric: value, **more}
    return {"seed": number, "steps": 30, "best_step": 20, "metrics": metrics, "failed": failed, "curve": curve}


def write_results(folder: Path, seeds: list[Any], predictions: list[Any], **changes: Any) -> Path:
    """A folder as `electra finetune` leaves it, with a log of the first seed only."""
    folder.mkdir(parents=True, exist_ok=True)
    worked = [entry for entry in seeds if entry["failed"] is None] or seeds
    main = next(iter(seeds[0]["metrics"]))
    best = max(worked, key=lambda entry: entry["metrics"][main])
    results = {
        "task": "demo",
        "kind": "classification",
        "main_metric": main,
        "split": "dev",
        "init_from": None,
        "num_examples": {"train": 1234, "dev": len(predictions)},
        "seeds": seeds,
        "summary": changes.get("summary") or summary(seeds),
        "num_failed": len(seeds) - len(worked),
        "best_seed": best["seed"],
        "null_threshold": None,
    }
    (folder / "results.json").write_text(json.dumps(results | changes))
    (folder / "predictions.jsonl").write_text("".join(json.dumps(record) + "\n" for record in predictions))
    log = folder / "seeds" / str(seeds[0]["seed"])
    log.mkdir(parents=True, exist_ok=True)
    rows = [{"step": step, "split": "train", "loss": 1 / step} for step in (8, 4, 16)]
    rows += [{"step": step, "split": "validation", main: value} for step, value in ((10, 31.25), (20, 62.5))]
    (log / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"half a li')
    return folder


def classified(gold: str, label: str, probability: float, text: str = "a text") -> Any:
    probabilities = dict.fromkeys("xyz", 1 - probability) | {label: probability}
    prediction = {"label": label, "probabilities": probabilities}
    return {"index": 0, "text_a": text, "text_b": None, "gold": gold, "prediction": prediction}


def read(folder: Path) -> tuple[str, Page]:
    html = write_finetune_report(folder).read_text("utf-8")
    return html, Page(html)


def errors_html(kind: str, records: list[Any]) -> str:
    return render("errors.html", errors=read_errors(kind, records, "squad"), split="dev")


def demo_html(folder: Path) -> str:
    return render("demo.html", demo=read_demo(folder))


def rows_of(html: str) -> list[list[str]]:
    """The cells of every table row as text."""
    rows = re.findall(r"<tr>(.*?)</tr>", html, flags=re.DOTALL)
    return [[re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in rows]


def test_scores_are_those_of_the_file_and_failed_seeds_are_flagged(tmp_path: Path) -> None:
    seeds = [
        seed(3, 81.234, matthews=60.0),
        seed(4, 90.0, matthews=None),
        seed(5, 12.5, failed='every example gets the class "x"', matthews=0.0),
    ]
    spread = {name: {"median": 85.617, "mean": 85.617, "std": 6.198, "best": 90.0, "n": 2} for name in ("accuracy",)}
    records = [classified("x", "x", 0.9), classified("x", "y", 0.9), classified("y", "y", 0.9)]
    html, page = read(write_results(tmp_path, seeds, records, summary=spread))
    assert rows_of(html)[:8] == [
        ["", "accuracy", "matthews"],
        ["seed 3, step 20 of 30", "81.23", "60.00"],
        ["seed 4, step 20 of 30, the best", "90.00", "–"],
        ["seed 5, step 20 of 30, failed", "12.50", "0.00"],
        ["median", "85.62", "–"],
        ["mean", "85.62", "–"],
        ["standard deviation", "6.20", "–"],
        ["best", "90.00", "–"],
    ]
    assert 'Seed 5 failed and is not averaged: every example gets the class "x".' in page.text
    assert "Median accuracy 85.62 over 2 seeds, the lowest 81.23, the highest 90.00." in page.text
    assert "median of 2 seeds; mean 85.62 ± 6.20; best 90.00, seed 4 at step 20" in page.text
    assert "always the most frequent class: 66.67" in page.text
    assert "1,234 train examples" in page.text


def test_curves_come_from_the_logs_and_else_from_the_results(tmp_path: Path) -> None:
    html, _ = read(write_results(tmp_path, [seed(0, 70.0), seed(1, 64.0)], []))
    assert re.findall(r"<title>(seed \d), step (\d+): ([\d.]+)</title>", html) == [
        ("seed 0", "4", "0.250"),
        ("seed 0", "8", "0.125"),
        ("seed 0", "16", "0.062"),
        ("seed 1", "10", "32.00"),
        ("seed 1", "20", "64.00"),
        ("seed 0", "10", "31.25"),
        ("seed 0", "20", "62.50"),
    ]


def test_confusions_are_counted_by_gold_and_predicted(tmp_path: Path) -> None:
    pairs = ["xx", "xx", "xy", "yx", "yy", "yy", "yy"]
    assert confusion([(gold, label) for gold, label in pairs], "xyz") == [[2, 1, 0], [1, 3, 0], [0, 0, 0]]
    records = [classified(gold, label, 0.8) for gold, label in pairs]
    html, _ = read(write_results(tmp_path, [seed(0, 71.0)], records))
    matrix = rows_of(html[html.index("matrix") :])
    start = next(i for i, row in enumerate(matrix) if row[0].startswith("gold"))
    assert [row[1:] for row in matrix[start : start + 6]] == [
        ["x", "y", "z", "examples", "recall, %"],
        ["2", "1", "", "3", "66.7"],
        ["1", "3", "", "4", "75.0"],
        ["", "", "", "0", "–"],
        ["3", "4", "0", "", ""],
        ["66.7", "75.0", "–", "", ""],
    ]


def test_the_twenty_surest_errors_are_shown_and_the_surest_comes_first() -> None:
    records = [classified("x", "x", 0.999, "right")]
    records += [classified("x", "y", (i * 7 % 25 + 50) / 100, f"text {i * 7 % 25} end") for i in range(25)]
    html = errors_html("classification", records)
    assert [int(number) for number in re.findall(r"text (\d+) end", html)] == list(range(24, 4, -1))
    assert "25 of 26 dev examples are wrong" in html
    assert html.index("74.0\N{NO-BREAK SPACE}% sure; 26.0\N{NO-BREAK SPACE}% for the right answer") < html.index("73.0")


def test_values_far_off_come_first() -> None:
    values = [(1.0, 1.5), (4.0, 1.0), (2.0, 2.0), (0.0, 1.0)]
    records = [{"text_a": "t", "gold": gold, "prediction": {"value": value}} for gold, value in values]
    assert [error.weight for error in ranked_errors("regression", records, "squad")] == [3.0, 1.0, 0.5]


def test_a_sentence_is_as_sure_as_the_surest_of_its_wrong_words() -> None:
    def sentence(*probabilities: float | None) -> Any:
        prediction = {"tags": ["O", "B-PER", "O"], "probabilities": probabilities}
        return {"words": ["a", "b", "c"], "gold": ["O", "O", "B-LOC"], "prediction": prediction}

    errors = ranked_errors("tagging", [sentence(0.99, 0.5, None), sentence(0.1, 0.4, 0.7)], "squad")
    assert [(error.weight, error.said, error.gold) for error in errors] == [
        (0.7, "c: O", "B-LOC"),
        (0.5, "b: B-PER", "O"),
    ]
    assert "<mark>c<small>O, not B-LOC</small></mark>" in errors_html("tagging", [sentence(0.99, 0.5, None)])
    assert "a <mark>b<small>B-PER, not O</small></mark> <mark>c" in errors_html("tagging", [sentence(0.1, 0.4, 0.7)])


def answered(gold: list[str], answer: str, probability: float, null_odds: float) -> Any:
    prediction = {"answer": answer, "probability": probability, "null_odds": null_odds, "nbest": []}
    context = "x " * 1000 + "The cat sat on the mat." + " y" * 1000
    return {"id": "1", "question": "Who?", "context": context, "gold": gold, "prediction": prediction}


def test_answers_are_right_or_wrong_as_the_official_script_says() -> None:
    records = [
        answered(["cat", "mat"], "The mat.", 0.9, -1.0),  # right once normalised
        answered([], "", 0.9, 1.0),  # right: there is none
        answered(["cat"], "mat", 0.6, -1.0),
        answered([], "cat", 0.8, -1.0),
        answered(["cat"], "", 0.9, 0.0),  # odds of 1 to 1: half sure that there is none
    ]
    errors = ranked_errors("question_answering", records, "squad")
    assert [(error.weight, error.said, error.gold) for error in errors] == [
        (0.8, "cat", "no answer"),
        (0.6, "mat", "cat"),
        (0.5, "no answer", "cat"),
    ]
    assert "The cat sat on the <mark>mat</mark>." in errors_html("question_answering", records)
    assert all(len(span.text) < 1000 for error in errors for text in error.texts for span in text.spans)


def test_questions_with_and_without_an_answer_stand_apart(tmp_path: Path) -> None:
    records = [answered(["cat"], "cat", 0.9, -1.0)] * 3 + [answered([], "cat", 0.5, -1.0), answered([], "", 0.5, 1.0)]
    more = {"f1": 80.0, "exact": 79.0, "HasAns_f1": 70.5, "HasAns_exact": 70.25, "NoAns_f1": 50.0, "NoAns_exact": 50.0}
    scores = seed(0, 81.0, metric="best_f1", **more)
    html, _ = read(write_results(tmp_path, [scores], records, kind="question_answering"))
    found = rows_of(html[html.index("<h2>Questions") :])
    assert found[1:4] == [
        ["all questions", "5", "79.00", "80.00"],
        ["with an answer", "3", "70.25", "70.50"],
        ["without an answer", "2", "50.00", "50.00"],
    ]
    assert [row[1:4] for row in found[5:7]] == [["3", "", "3"], ["1", "1", "2"]]


def test_entities_are_counted_by_type(tmp_path: Path) -> None:
    record = {"words": list("abcd"), "gold": ["B-PER", "I-PER", "O", "B-LOC"]}
    record["prediction"] = {"tags": ["B-PER", "I-PER", "B-LOC", "O"], "probabilities": [0.9, 0.9, 0.8, 0.7]}
    html, page = read(write_results(tmp_path, [seed(0, 50.0, metric="f1")], [record], kind="tagging"))
    assert rows_of(html[html.index("<h2>Entities") :])[1:4] == [
        ["LOC", "1", "1", "0", "0.00", "0.00", "0.00"],
        ["PER", "1", "1", "1", "100.00", "100.00", "100.00"],
        ["all", "2", "2", "1", "50.00", "50.00", "50.00"],
    ]
    assert "Of 4 words, 50.00 % have the right tag." in page.text


def test_a_scatter_plot_has_a_point_for_each_value() -> None:
    chart = scatter_chart("t", [(0.0, 4.0, "a"), (4.0, 0.0, "b"), (float("nan"), 1.0, "c")], axes=("gold", "predicted"))
    assert chart is not None
    left, right = chart.lines[-1].marks
    assert left.x < right.x
    assert left.y < right.y
    assert (left.text, right.text) == ("a", "b")


EVIL_RECORDS = {
    "classification": classified(EVIL, EVIL + "2", 0.5, EVIL) | {"text_b": EVIL},
    "regression": {"text_a": EVIL, "text_b": EVIL, "gold": 1.0, "prediction": {"value": 2.0}},
    "tagging": {
        "words": [EVIL, "b"],
        "gold": [f"B-{EVIL}", "O"],
        "prediction": {"tags": ["O", f"B-{EVIL}"], "probabilities": [None, 0.5]},
    },
    "question_answering": answered([EVIL], EVIL + "no", 0.5, -1.0) | {"question": EVIL, "context": EVIL + EVIL + "no"},
}


@pytest.mark.parametrize("kind", EVIL_RECORDS)
def test_hostile_text_stays_text(tmp_path: Path, kind: str) -> None:
    folder = write_results(tmp_path, [seed(0, 50.0, failed=EVIL)], [EVIL_RECORDS[kind]], kind=kind, task=EVIL)
    (folder / "config.gin").write_text(EVIL)
    _, page = read(folder)
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in ("src", "href", "onerror")]
    assert page.text.count(EVIL) >= 5  # title, heading, summary, failure and configuration
    assert EVIL in Page(errors_html(kind, [EVIL_RECORDS[kind]])).text


@pytest.mark.parametrize("kind", EVIL_RECORDS)
def test_a_run_without_predictions_or_working_seeds_still_makes_a_page(tmp_path: Path, kind: str) -> None:
    folder = write_results(tmp_path, [seed(0, 50.0, failed="no"), seed(1, 50.0, failed="no")], [], kind=kind)
    (folder / "predictions.jsonl").unlink()
    (folder / "seeds" / "0" / "metrics.jsonl").unlink()
    _, page = read(folder)
    assert "Every seed failed." in page.text
    assert "no predictions.jsonl" in page.text
    assert "nan" not in page.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no results.json in"),
        ('{"task": "x"}', "it has no best_seed, kind, main_metric"),
        ("{", "is not JSON"),
        ("[]", "it is .., and must be an object"),
    ],
)
def test_results_that_are_none_are_refused(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError, match=words):
        write_finetune_report(tmp_path)


def test_runs_stand_apart_where_the_medians_differ_by_more_than_either_spread() -> None:
    def apart(above: list[float], below: list[float]) -> bool:
        return scores_separated(Scores(tuple(above), ()), Scores(tuple(below), ()))

    assert apart([62.0, 61.0, 63.0], [48.0, 47.0, 50.0])
    assert not apart([48.0, 47.0, 50.0], [62.0, 61.0, 63.0])
    assert not apart([62.0, 61.0, 75.0], [48.0, 47.0, 50.0])  # 14 points apart, and as many spread over
    assert not apart([70.0, 70.0, 60.0], [50.0, 50.0, 60.0])  # one seed of each is as good
    assert not apart([62.0], [48.0])  # nothing is known of the spread


@pytest.mark.parametrize(
    ("pretrained", "words"),
    [
        ([62.0, 61.0, 63.0], "Pre-training helps. The median accuracy is 62.00 from pre-trained and 48.00 from random"),
        ([28.0, 27.0, 29.0], "Pre-training hurts."),
        ([50.0, 40.0, 58.0], "Seeds spread over 18.00 and 3.00 points: too much"),
        ([62.0], "has no spread"),
        ([], "Every seed from pre-trained weights failed."),
    ],
)
def test_the_comparison_says_what_the_points_show(tmp_path: Path, pretrained: list[float], words: str) -> None:
    assert read_demo(tmp_path) is None
    for name, values in (("pretrained", pretrained), ("random", [48.0, 47.0, 50.0])):
        seeds = [seed(i, value) for i, value in enumerate(values)] + [seed(9, 12.5, failed="no")]
        write_results(tmp_path / "finetune" / name, seeds, [])
    html = demo_html(tmp_path)
    assert words in Page(html).text
    titles = re.findall(r"<title>([^<]*)</title>", html)
    assert titles == [
        *(f"{value:.2f}" for value in pretrained),
        "12.50 (failed)",
        "48.00",
        "47.00",
        "50.00",
        "12.50 (failed)",
    ]


def test_runs_of_different_settings_are_not_compared(tmp_path: Path) -> None:
    for name, dev in (("pretrained", 100), ("random", 50)):
        write_results(tmp_path / "finetune" / name, [seed(0, 50.0)], [], num_examples={"train": 9, "dev": dev})
    assert "The two runs differ in num examples." in Page(demo_html(tmp_path)).text
