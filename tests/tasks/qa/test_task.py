"""Question answering as a task: rows, both heads' outputs, and scores."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.catalog import task_from_facts
from electra_jax.tasks.protocol import Row
from electra_jax.tasks.qa.decoding import QAPrediction, ScoredText
from electra_jax.tasks.qa.questions import QAExample
from electra_jax.tasks.qa.task import QATask
from support.questions import CONTEXT, OTHER, QUESTIONS, VOCABULARY, made, mrqa, squad, written


def raw(length: int = 24, scoring: str = "squad_v1") -> QATask:
    return dataclasses.replace(made("squad_v1", None, length=length), scoring=scoring)


def log_softmax(logits_L: np.ndarray) -> np.ndarray:
    return (logits_L - np.logaddexp.reduce(logits_L)).astype(np.float32)


def outputs_of(
    row: Row, span: tuple[int, int], *, joint: bool, score: float, answerable: float | None, padding: int = 0
) -> dict[str, np.ndarray]:
    """What a head that is sure of `span` says of a row; `score` tells windows apart."""
    length = len(row["input_ids"]) + padding
    start_L, end_L = np.full(length, -9.0, np.float32), np.full(length, -9.0, np.float32)
    if not joint:
        start_L[len(row["input_ids"]) :] = end_L[len(row["input_ids"]) :] = 50.0  # nobody has masked the padding
    start_L[span[0]], end_L[span[1]] = score, score
    outputs = {"start_logits": start_L}
    if joint:
        beam = 3
        starts = np.argsort(-start_L, kind="stable")[:beam]
        ends = np.argsort(-end_L, kind="stable")[:beam]
        outputs["start_top_index"] = starts.astype(np.int32)
        outputs["start_top_log_probs"] = log_softmax(start_L)[starts]
        outputs["end_top_index"] = np.tile(ends, (beam, 1)).astype(np.int32)
        outputs["end_top_log_probs"] = np.tile(log_softmax(end_L)[ends], (beam, 1))
    else:
        outputs["end_logits"] = end_L
    if answerable is not None:
        outputs["answerable_logit"] = np.array(answerable, np.float32)
    return outputs


def perfect_outputs(
    task: QATask, examples: Sequence[QAExample], *, joint: bool, padding: int
) -> tuple[list[Row], list[dict[str, np.ndarray]]]:
    """Rows for prediction, last first, with what a model says of them that knows the targets of training."""
    targets = {(int(row["example"]), int(row["window"])): row for row in task.rows(examples, training=True)}
    rows = task.rows(examples, training=False)[::-1]
    outputs = []
    for row in rows:
        target = targets[int(row["example"]), int(row["window"])]
        span = int(target["start_positions"]), int(target["end_positions"])
        answerable = 2.0 if target["is_impossible"] else -2.0
        outputs.append(outputs_of(row, span, joint=joint, score=6.0, answerable=answerable, padding=padding))
    return rows, outputs


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("padding", [0, 30])
@pytest.mark.parametrize("name", ["squad_v1", "squad_v2", "triviaqa"])
def test_perfect_outputs_score_full_marks(tmp_path: Path, name: str, joint: bool, padding: int) -> None:
    questions = QUESTIONS if name == "squad_v2" else QUESTIONS[:3]
    if name == "triviaqa":
        written(tmp_path / name / "dev.jsonl", mrqa(questions))
    else:
        written(tmp_path / name / "dev.json", squad(questions))
    task = made(name, tmp_path)
    assert task.splits == ("dev",)
    examples = task.examples("dev").examples
    rows, outputs = perfect_outputs(task, examples, joint=joint, padding=padding)
    assert len(rows) > len(examples)  # the longer context takes several windows
    assert all(len(row["input_ids"]) <= 24 for row in rows)
    predictions = task.predictions(examples, rows, outputs)
    assert [prediction.text for prediction in predictions[:3]] == ["John Smith", "1895-1943", "Houston"]
    scores = task.score(examples, predictions)
    assert next(iter(scores)) == task.main_metric
    expected = {"exact", "f1", "best_exact", "best_f1"} if name == "squad_v2" else {"exact_match", "f1"}
    assert {metric: scores[metric] for metric in expected} == dict.fromkeys(expected, 100.0)


def test_rows_are_what_the_model_reads(tmp_path: Path) -> None:
    task = raw(64)
    written(tmp_path / "train.json", squad([*QUESTIONS, ("Where?", OTHER, "Houston")]))
    examples = made("squad_v2", tmp_path, length=64).examples("train").examples
    rows = task.rows(examples, training=True)
    names = {"input_ids", "token_type_ids", "answer_mask", "start_positions", "end_positions", "is_impossible"}
    of_host = {"example", "window", "num_tokens", "num_cut", "question_length"}
    assert all(row.keys() == names | of_host for row in rows)
    assert all(array.dtype == np.int32 for row in rows for array in row.values())
    tokens = [VOCABULARY.tokens[token] for token in rows[1]["input_ids"]]
    assert tokens[rows[1]["start_positions"] : rows[1]["end_positions"] + 1] == ["1895", "-", "1943"]
    assert [(int(row["start_positions"]), int(row["is_impossible"])) for row in rows][3] == (0, 1)
    assert [int(row["example"]) for row in rows] == [0, 1, 2, 3, 4]
    assert task.rows(examples, training=False)[0].keys() == {
        "input_ids",
        "token_type_ids",
        "answer_mask",
        *of_host,
    }


def test_windows_are_merged_and_scored_by_hand(tmp_path: Path) -> None:
    written(tmp_path / "dev.json", squad(QUESTIONS[:2]))
    task = made("squad_v1", tmp_path, length=18)
    examples = task.examples("dev").examples
    rows = task.rows(examples, training=False)
    # Of each window, ten pieces from every fourth on, the pieces that its head likes best, and how well. Piece 6 stands
    # deeper in the first window, so that what the second says of a span that starts there does not count.
    liked = {
        (0, 0): (2, 4, 6.0),
        (0, 1): (11, 11, 5.0),
        (0, 2): (13, 14, 3.0),
        (1, 0): (6, 8, 5.0),
        (1, 1): (6, 6, 9.0),
        (1, 2): (13, 14, 3.0),
    }
    outputs = []
    for row in rows:
        first, last, score = liked[int(row["example"]), int(row["window"])]
        shift = int(row["token_type_ids"].argmax()) - 4 * int(row["window"])
        outputs.append(outputs_of(row, (first + shift, last + shift), joint=False, score=score, answerable=None))
    predictions = task.predictions(examples, rows, outputs)
    assert [prediction.text for prediction in predictions] == ["was John Smith", "1895-1943"]
    # Two of three words are right, and both that are wanted: F1 0.8.
    assert task.score(examples, predictions) == {"f1": pytest.approx(90.0), "exact_match": 50.0}


def said(text: str, null_odds: float | None) -> QAPrediction:
    return QAPrediction((ScoredText(text, 1.0, 0.0, 0.0),), null_odds)


def test_threshold_is_found_kept_and_applied(tmp_path: Path) -> None:
    written(tmp_path / "dev.json", squad(QUESTIONS))
    task = made("squad_v2", tmp_path)
    examples = task.examples("dev").examples
    # In order of the odds: right (1), half right (2/3: "smith" and "john smith"), wrong, and one without answer.
    predictions = [said("Smith", -1.0), said("1895-1943", -2.0), said("Texas", 0.5), said("he", 1.0)]
    assert task.fit_threshold(examples, predictions) == -0.25  # -1.0 is the official one, and 0.5 the next
    scores = task.score(examples, predictions)
    assert scores["best_f1"] == pytest.approx(100 * (1 + 2 / 3 + 1) / 4)
    assert (scores["f1"], scores["best_f1_thresh"]) == (scores["best_f1"], -1.0)
    assert scores["best_exact"] == 50.0
    # A threshold of an earlier split is kept: it withholds all but the surest.
    fitted = dataclasses.replace(task, null_threshold=-1.5)
    scores = fitted.score(examples, predictions)
    assert (scores["f1"], scores["best_f1"]) == (50.0, pytest.approx(100 * (2 + 2 / 3) / 4))
    fitted.write_predictions(examples, predictions, str(tmp_path / "out"))
    answers, nbest, odds = (
        json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in ("predictions", "nbest", "null_odds")
    )
    assert answers == {"q0": "", "q1": "1895-1943", "q2": "", "q3": ""}
    assert nbest["q0"][0]["text"] == "Smith"
    assert odds == {"q0": -1.0, "q1": -2.0, "q2": 0.5, "q3": 1.0}
    assert raw().fit_threshold(examples, predictions) is None
    # Where nothing but never to answer is best, so does the threshold, although the official one is 0.
    wrong = [said("Texas", -3.0), said("he", -4.0), said("Texas", -1.0), said("he", -2.0)]
    never = dataclasses.replace(task, null_threshold=task.fit_threshold(examples, wrong))
    scores = never.score(examples, wrong)
    assert (scores["f1"], scores["best_f1"], scores["best_f1_thresh"]) == (25.0, 25.0, 0.0)


def test_null_odds_with_and_without_a_head_for_them(tmp_path: Path) -> None:
    written(tmp_path / "dev.json", squad(QUESTIONS[:1]))
    task = dataclasses.replace(made("squad_v2", tmp_path, length=64), null_threshold=0.0)
    examples = task.examples("dev").examples
    (row,) = task.rows(examples, training=False)
    first = int(row["token_type_ids"].argmax()) + 3

    def odds(**settings: Any) -> QAPrediction:
        output = outputs_of(row, (first, first + 1), score=2.0, **settings)
        output["start_logits"][0] = 1.0
        if "end_logits" in output:
            output["end_logits"][0] = 4.0
        return task.predictions(examples, [row], [output])[0]

    assert odds(joint=True, answerable=-0.25).null_odds == -0.25
    assert odds(joint=False, answerable=0.5).null_odds == 0.5
    assert odds(joint=False, answerable=0.5).to_json()["answer"] == ""
    assert odds(joint=False, answerable=None).null_odds == 1.0 + 4.0 - (2.0 + 2.0)
    joint = odds(joint=True, answerable=None)
    assert joint.text == "John Smith"
    others = len(row["input_ids"]) - 2
    log_start_at_cls = 1.0 - np.log(np.exp(1.0) + np.exp(2.0) + others * np.exp(-9.0))
    best = joint.nbest[0].start_logit + joint.nbest[0].end_logit
    assert joint.null_odds == pytest.approx(log_start_at_cls - best, abs=1e-5)
    assert CONTEXT[15:25] == "John Smith"
    assert joint.to_json() == {
        "answer": "John Smith",
        "start": 15,
        "end": 25,
        "probability": 1.0,
        "nbest": [dataclasses.asdict(entry) for entry in joint.nbest],
        "null_odds": joint.null_odds,
        "null_threshold": 0.0,
    }


def test_test_split_without_answers_is_predicted_but_not_scored(tmp_path: Path) -> None:
    written(tmp_path / "squad_v2/test.json", squad(QUESTIONS, labelled=False))
    task = made("squad_v2", tmp_path, length=64)
    examples = task.examples("test").examples
    rows = task.rows(examples, training=False)
    outputs = [outputs_of(row, (8, 8), joint=True, score=1.0, answerable=0.0) for row in rows]
    predictions = task.predictions(examples, rows, outputs)
    assert len(predictions) == 4
    with pytest.raises(UserError, match="none of the 4 questions has a gold answer: a test split"):
        task.score(examples, predictions)
    with pytest.raises(UserError, match="none of the 4 questions has a gold answer: a test split"):
        task.fit_threshold(examples, predictions)


def test_raw_input_by_a_task_rebuilt_from_its_facts(tmp_path: Path) -> None:
    made_task = dataclasses.replace(raw(64, "squad_v2"), null_threshold=0.75)
    task = task_from_facts(json.loads(json.dumps(made_task.describe())), VOCABULARY)
    assert task == dataclasses.replace(made_task, sources=task.sources)
    inputs = [
        {"question": "Who \ud800?", "context": f"\udfff {CONTEXT}"},
        {"question": "Who?", "context": " \u200b\n"},
        {"question": "", "context": CONTEXT, "id": "mine"},
    ]
    examples = task.raw_examples(inputs)
    assert [example.example_id for example in examples] == ["input 1", "input 2", "mine"]
    rows = task.rows(examples, training=False)
    outputs = [
        outputs_of(row, (row["token_type_ids"].argmax(),) * 2, joint=True, score=1, answerable=0) for row in rows
    ]
    predictions = task.predictions(examples, rows, outputs)
    assert [prediction.text for prediction in predictions] == ["The", "", "The"]
    assert all(prediction.null_threshold == 0.75 for prediction in predictions)
    json.dumps([prediction.to_json() for prediction in predictions]).encode()
    with pytest.raises(UserError, match="input 1: the field 'context' is missing"):
        task.raw_examples([{"question": "Who?"}])
    with pytest.raises(UserError, match="has no dev split: it was made without data files"):
        task.examples("dev")


def test_context_of_a_hundred_thousand_words() -> None:
    task = dataclasses.replace(raw(512), windows=dataclasses.replace(raw(512).windows, doc_stride=128))
    context = "He was where the leader was. " * 16_666 + "Houston"
    examples = task.raw_examples([{"question": "Where did he live?", "context": context}])
    rows = task.rows(examples, training=False)
    outputs = [outputs_of(row, (len(row["input_ids"]) - 2,) * 2, joint=True, score=1, answerable=0) for row in rows]
    outputs[-1]["start_top_log_probs"] = outputs[-1]["start_top_log_probs"] + 1
    (prediction,) = task.predictions(examples, rows, outputs)
    assert prediction.text == "Houston"
