"""What is reported of a fine-tuning: failures of each kind, the spread over seeds, and records of predictions."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from electra_jax.finetuning import seed_run
from electra_jax.finetuning.patience import Patience
from electra_jax.finetuning.results import answer_of, best_seed, collapse, record_of, show, summary, write_predictions
from electra_jax.tasks.catalog import task_from_facts
from electra_jax.tasks.protocol import DownstreamTask
from electra_jax.tasks.qa.decoding import QAPrediction, ScoredText
from electra_jax.tasks.qa.questions import Answer, QAExample
from electra_jax.tasks.tagging.prediction import TaggingPrediction
from electra_jax.tasks.tagging.sentences import TaggedSentence
from electra_jax.tasks.text.tables import TextExample
from electra_jax.tasks.text.task import LabelPrediction, ValuePrediction
from electra_jax.tasks.vocabulary import Vocabulary
from electra_jax.training.stop import Stop
from support.finetuned_model import QA, TAGGING, TOKENS, text_facts

PIECES = Vocabulary(TOKENS, lowercase=True, strip_accents=True)
REGRESSION = {**text_facts("stsb", (), pair=True), "kind": "regression", "target": [0.0, 5.0], "metrics": ["spearman"]}


def task_of(kind: str) -> DownstreamTask:
    facts = {
        "classification": text_facts("rte", ("no", "yes"), pair=False),
        "regression": REGRESSION,
        "tagging": TAGGING,
        "question_answering": QA,
    }
    return task_from_facts(facts[kind], PIECES)


def text(label: float) -> TextExample:
    return TextExample(0, "the cat", None, label)


def tagged(*tags: str) -> TaggedSentence:
    return TaggedSentence(tuple("abcdefgh"[: len(tags)]), tags, 1)


def says_tags(*tags: str) -> TaggingPrediction:
    return TaggingPrediction(tuple("abcdefgh"[: len(tags)]), tags, (0.5,) * len(tags))


def question(*answers: str) -> QAExample:
    spans = tuple(Answer(answer, 0, len(answer)) for answer in answers)
    return QAExample("q", "Who sat?", "John sat.", spans, answers, not answers)


def answers(text: str, *, null_odds: float = -1.0) -> QAPrediction:
    return QAPrediction((ScoredText(text, 0.9, 1.0, 2.0),), null_odds, 0.0)


YES, NO = (LabelPrediction(label, {"no": 0.5, "yes": 0.5}) for label in ("yes", "no"))
COLLAPSED = {
    "classification": ([text(0), text(1)], [YES, YES], 'every example gets the class "yes"'),
    "regression": ([text(0.5), text(4.0)], [ValuePrediction(2.0), ValuePrediction(2.02)], "about the value 2.01"),
    "tagging": ([tagged("B-PER", "O"), tagged("O")], [says_tags("O", "O"), says_tags("O")], 'gets "no entity"'),
    "question_answering": (
        [question("John"), question()],
        # Both answers are withheld: their null odds are above the threshold.
        [answers("John", null_odds=1.0), answers("sat", null_odds=2.0)],
        'every question gets the answer ""',
    ),
}
SOUND = {
    "classification": [YES, NO],
    "regression": [ValuePrediction(2.0), ValuePrediction(2.04)],
    "tagging": [says_tags("O", "B-PER"), says_tags("O")],
    "question_answering": [answers("John"), answers("John", null_odds=2.0)],
}


@pytest.mark.parametrize("kind", COLLAPSED)
def test_the_same_of_every_example_is_a_failure(kind: str) -> None:
    task = task_of(kind)
    examples, predictions, reason = COLLAPSED[kind]
    assert reason in collapse(task, examples, predictions)
    assert collapse(task, examples, SOUND[kind]) is None
    # Where the gold answers are all the same, saying it always is right.
    assert collapse(task, [examples[0]] * 2, predictions) is None


@pytest.mark.parametrize("kind", COLLAPSED)
def test_records_hold_the_input_the_gold_and_the_prediction(kind: str, tmp_path: Path) -> None:
    task = task_of(kind)
    examples, predictions, _ = COLLAPSED[kind]
    write_predictions(tmp_path, task, examples, predictions)
    records = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert records == [record_of(task, *pair) for pair in zip(examples, predictions, strict=True)]
    expected = {
        "classification": {"index": 0, "text_a": "the cat", "text_b": None, "gold": "no"},
        "regression": {"index": 0, "text_a": "the cat", "text_b": None, "gold": 0.5},
        "tagging": {"words": ["a", "b"], "gold": ["B-PER", "O"]},
        "question_answering": {"id": "q", "question": "Who sat?", "context": "John sat.", "gold": ["John"]},
    }
    assert records[0] == expected[kind] | {"prediction": predictions[0].to_json()}


def test_an_answer_counts_as_what_it_comes_down_to() -> None:
    assert answer_of(task_of("tagging"), says_tags("O", "B-PER").to_json()) == ["O", "B-PER"]
    threshold = dataclasses.replace(answers("John", null_odds=1.0), null_threshold=2.0)
    assert answer_of(task_of("question_answering"), threshold.to_json()) == "John"


def seed(number: int, accuracy: float, f1: float, *, failed: str | None = None) -> dict[str, Any]:
    metrics = {"accuracy": accuracy, "f1": f1}
    return {"seed": number, "best_step": 10 * number, "metrics": metrics, "failed": failed}


SEEDS = [
    seed(3, 80.0, 60.0),
    seed(4, 50.0, 0.0, failed='every example gets the class "no"'),
    seed(5, 90.0, 50.0),
    seed(6, 82.0, 70.0),
]


def test_the_summary_leaves_out_what_failed() -> None:
    """80, 90, 82: deviations from 84 are -4, 6 and -2, whose squares sum to 56; a sample of 3 divides by 2."""
    found = summary(SEEDS)
    expected = {"median": 82.0, "mean": 84.0, "std": 28.0**0.5, "best": 90.0, "n": 3}
    assert found["accuracy"] == pytest.approx(expected)
    assert found["f1"] == pytest.approx({"median": 60.0, "mean": 60.0, "std": 10.0, "best": 70.0, "n": 3})
    assert summary(SEEDS[:1])["accuracy"] == {"median": 80.0, "mean": 80.0, "std": 0.0, "best": 80.0, "n": 1}
    assert summary(SEEDS[1:2]) == {}


def test_the_best_seed_is_one_that_worked() -> None:
    assert best_seed(SEEDS, "accuracy") == 5
    assert best_seed(SEEDS, "f1") == 6
    failed = [seed | {"failed": "x", "metrics": {"accuracy": 99.0}} for seed in SEEDS[:1]]
    assert best_seed([*failed, SEEDS[1] | {"failed": None}], "accuracy") == 4
    assert best_seed([SEEDS[1], SEEDS[1] | {"seed": 7, "metrics": {"accuracy": 51.0}}], "accuracy") == 7


def test_the_table_has_every_score_and_says_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    results = {"task": "rte", "num_examples": {"dev": 7}, "split": "dev", "main_metric": "accuracy", "seeds": SEEDS}
    results |= {"selection": "last", "other_splits": {}}
    show(results | {"summary": summary(SEEDS)})
    said = capsys.readouterr().out
    for cell in (
        "rte (7 dev examples), the last checkpoint",
        "seed 4, step 40, failed",
        "50.00",
        "82.00",
        "5.29",
        "90.00",
    ):
        assert cell in said
    assert 'seed 4 failed and is not averaged: every example gets the class "no"' in said
    for none_or_one_worked in (SEEDS[1:2], SEEDS[:2]):
        show(results | {"seeds": none_or_one_worked, "summary": summary(none_or_one_worked)})
        said = capsys.readouterr().out
        assert "seed 4" in said
        assert not any(statistic in said for statistic in ("median", "std"))
    # Nothing is cut on a terminal of 80 columns.
    many = {
        f"{prefix}{name}": 100.0 for prefix in ("", "HasAns_", "NoAns_", "best_") for name in ("exact", "f1", "total")
    }
    for metrics, number in ((many, 2), ({"f1": 100.0, "accuracy": 100.0}, 9)):
        seeds = [{"seed": seed, "best_step": 1000, "metrics": metrics, "failed": None} for seed in range(number)]
        show(results | {"seeds": seeds, "summary": summary(seeds), "main_metric": "f1"})
        said = capsys.readouterr().out
        assert said.count("100.00") == len(metrics) * (number + 3)
        assert all(name in said for name in metrics)


def test_labels_that_look_like_markup_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """A library takes `[/b]` for the end of what never began, `[b]` for bold, and `:cat:` for a picture."""
    names = ("f1_[/b]", "f1_[b]", "f1_:cat:")
    seeds = [{"seed": 0, "best_step": 3, "metrics": dict.fromkeys(names, 50.0), "failed": "no [/x] is found"}]
    results = {"task": "[/own]", "num_examples": {"dev": 7}, "split": "dev", "main_metric": names[0], "seeds": seeds}
    show(results | {"selection": "last", "other_splits": {}, "summary": summary(seeds)})
    said = capsys.readouterr().out
    assert all(one in said for one in (*names, "[/own] (7 dev examples)", "not averaged: no [/x] is found"))


def test_a_score_that_is_not_a_number_is_never_the_best(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nan = float("nan")
    scores = iter([nan, 50.0, nan, 49.0, 51.0])
    monkeypatch.setattr(
        seed_run, "evaluate", lambda context, params: SimpleNamespace(scores={"accuracy": next(scores)})
    )
    patience = Patience(2, "accuracy", earlier=(), stop=Stop())
    context: Any = SimpleNamespace(
        task=SimpleNamespace(main_metric="accuracy"),
        run=SimpleNamespace(selection="best"),
        loop=SimpleNamespace(num_train_steps=5),
    )
    best = seed_run.Kept(context, tmp_path, seed=0, patience=patience)
    kept: list[int] = []
    monkeypatch.setattr(best, "_save", lambda params, step, found: kept.append(step))
    for step in range(1, 6):
        best({}, step)
    assert kept == [1, 2, 5]
    assert not patience.exhausted
    seeds = [
        {"seed": seed, "failed": None, "metrics": {"accuracy": score}} for seed, score in enumerate([nan, 1.0, nan])
    ]
    assert best_seed(seeds, "accuracy") == 1
    errors = [{"seed": seed, "failed": None, "metrics": {"rmse": score}} for seed, score in enumerate([3.0, nan, 2.0])]
    assert best_seed(errors, "rmse") == 2
    assert summary(errors)["rmse"]["best"] == 2.0
    assert summary(seeds)["accuracy"] == {"median": 1.0, "mean": 1.0, "std": 0.0, "best": 1.0, "n": 1}
