"""Scores of predictions in files: equal to the official scripts' recorded ones, and what does not fit the data."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.scoring import score_predictions, tagged_file
from support.shared import DATA, ORACLE, existing, needs
from support.tiny_model import task_options


def written(path: Path, content: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_squad_scores_are_the_official_ones(tmp_path: Path) -> None:
    case = json.loads(existing(ORACLE / "finetune/squad_eval.json").read_text())
    # The record has only what the scripts read.
    for article in case["dataset"]:
        for paragraph in article["paragraphs"]:
            paragraph["context"] = ""
            for question in paragraph["qas"]:
                question["question"] = ""
                question["answers"] = [answer | {"answer_start": 0} for answer in question["answers"]]
                question["is_impossible"] = not question["answers"]
    dev = written(tmp_path / "dev.json", {"data": case["dataset"]})
    predictions = written(tmp_path / "predictions.json", case["preds"])
    odds = written(tmp_path / "null_odds.json", case["na"])
    for threshold, expected in case["v2_thresholded"].items():
        options = task_options("squad_v2", dev_file=dev, null_threshold=float(threshold))
        assert score_predictions(options, "dev", predictions, null_odds_file=odds) == expected | case["v2_best"]
    # A user's own file is scored so too if it marks what has no answer; without odds nothing is withheld.
    without = score_predictions(task_options("qa", dev_file=dev), "dev", predictions, null_odds_file=None)
    raw = case["v2_raw_f1"]
    assert without["f1"] == 100.0 * sum(raw.values()) / len(raw)
    assert "best_f1" not in without

    for article in case["dataset"]:
        for paragraph in article["paragraphs"]:
            paragraph["qas"] = [question for question in paragraph["qas"] if question["answers"]]
    written(tmp_path / "dev.json", {"data": case["dataset"]})
    options = task_options("squad_v1", dev_file=dev)
    assert score_predictions(options, "dev", predictions, null_odds_file=None) == case["v1"]
    other = written(tmp_path / "other.json", {"x": "y"})
    with pytest.raises(UserError, match="no question of the data has a prediction"):
        score_predictions(options, "dev", other, null_odds_file=None)


def test_mrqa_scores_count_or_skip_what_is_unanswered(tmp_path: Path) -> None:
    entry = {"question": "", "answers": ["a new town", "x y"], "detected_answers": []}
    record = {"context": "", "qas": [entry | {"qid": name} for name in "abcd"]}
    dev = written(tmp_path / "dev.jsonl", json.dumps(record))
    predictions = written(tmp_path / "p.json", {"a": "New town!", "b": "x", "c": "old"})
    for rules, number in (("standard", 4), ("original", 3)):
        options = task_options("newsqa", dev_file=dev, rules=rules)
        scores = score_predictions(options, "dev", predictions, null_odds_file=None)
        # Articles and punctuation do not count; "x" is all right and half of what is wanted: F1 2/3.
        assert scores == pytest.approx({"exact_match": 100 / number, "f1": 100 * (1 + 2 / 3) / number})


@needs(DATA / "conll2000")
def test_tagged_file_is_scored_as_conlleval_printed_it() -> None:
    file = str(DATA / "conll2000/conlleval/output.txt")
    printed = (DATA / "conll2000/conlleval/result.txt").read_text()
    assert tagged_file(file, rules="standard").report() == printed
    scores = score_predictions(task_options("chunk"), "test", file, null_odds_file=None)
    for name, metric in (("accuracy", "accuracy"), ("precision", "precision"), ("recall", "recall"), ("FB1", "f1")):
        assert f"{name}: {scores[metric]:6.2f}" in printed.splitlines()[1]


def test_glue_submission(tmp_path: Path) -> None:
    rows = "".join(
        f"{number}\ta b\tc d\t{label}\n" for number, label in enumerate(["entailment", "not_entailment"] * 3)
    )
    written(tmp_path / "RTE/dev.tsv", f"index\tsentence1\tsentence2\tlabel\n{rows}")
    written(tmp_path / "RTE/test.tsv", "index\tsentence1\tsentence2\n0\ta b\tc d\n")
    options = task_options("rte", data_dir=str(tmp_path))
    lines = ["index\tprediction", *(f"{number}\tentailment" for number in range(6))]
    submission = written(tmp_path / "RTE.tsv", "\n".join(lines))
    assert score_predictions(options, "dev", submission, null_odds_file=None) == {"accuracy": 50.0}

    scores = "".join(f"{i}\tg\tf\ty\tx\tx\tx\ta\tb\t{value}\n" for i, value in enumerate([0.0, 1.0, 2.5, 5.0]))
    header = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
    written(tmp_path / "STS-B/dev.tsv", header + scores)
    similar = written(tmp_path / "STS-B.tsv", "index\tprediction\n0\t0.500\n1\t1.000\n2\t4.000\n3\t3.500\n")
    scores = score_predictions(task_options("stsb", data_dir=str(tmp_path)), "dev", similar, null_odds_file=None)
    # Ranks 1 2 4 3 against 1 2 3 4: 1 - 6 * 2 / (4 * 15).
    assert scores["spearman"] == pytest.approx(80.0)

    short = written(tmp_path / "short.tsv", "\n".join(lines[:-1]))
    with pytest.raises(UserError, match=r"short\.tsv predicts 5 rows, but the dev split of rte has 6"):
        score_predictions(options, "dev", short, null_odds_file=None)
    other = written(tmp_path / "other.tsv", "\n".join([*lines[:-1], "9\tentailment"]))
    with pytest.raises(UserError, match=r"other\.tsv has no prediction of row 5 of the dev split of rte"):
        score_predictions(options, "dev", other, null_odds_file=None)
    with pytest.raises(UserError, match="the test split of rte has no public labels"):
        score_predictions(options, "test", submission, null_odds_file=None)
    with pytest.raises(UserError, match="null odds belong to question answering"):
        score_predictions(options, "dev", submission, null_odds_file=submission)
    with pytest.raises(UserError, match="'package_of' has no file format of predictions"):
        score_predictions(task_options("package_of"), "dev", submission, null_odds_file=None)


def test_tasks_are_read_and_scored_without_tensorflow() -> None:
    program = """
import sys
from electra_jax.tasks import catalog, scoring
print(sorted({"tensorflow", "seqio", "gin", "orbax", "tensorflow_datasets"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
