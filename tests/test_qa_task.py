"""Question answering as a task: layouts of files, rows, both heads' outputs, scores, and what is wrong with data."""

import dataclasses
import gzip
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from electra_jax.errors import UserError
from electra_jax.tasks.downstream import Row
from electra_jax.tasks.qa_decoding import Prediction, ScoredText
from electra_jax.tasks.qa_files import QAExample
from electra_jax.tasks.qa_task import QATask, make_qa_task, qa_task_from_facts
from electra_jax.tasks.vocabulary import WordPieceVocabulary
from electra_jax.tasks.wordpiece import SPECIAL_TOKENS
from small import task_options

SQUAD = Path(os.environ.get("ELECTRA_ORACLE", Path(__file__).parents[2] / "shared/oracle")).parent / "data/squad"

CONTEXT = "The leader was John Smith (1895-1943). He liked double spaces."
OTHER = "Texas is where he was. " * 4 + "Houston was where he did live."
WORDS = "the leader was john smith ( 1895 - 1943 ) . he liked double spaces when did live ? where is texas houston who"
VOCABULARY = WordPieceVocabulary([*SPECIAL_TOKENS, *WORDS.split()], lowercase=True, strip_accents=True)

# question, context, answer; None: the context has none
QUESTIONS = [
    ("Who was the leader?", CONTEXT, "John Smith"),
    ("When did he live?", CONTEXT, "1895-1943"),
    ("Where did he live?", OTHER, "Houston"),
    ("Where is the leader?", OTHER, None),
]


def squad(questions: Sequence[tuple[str, str, str | None]], *, labelled: bool = True) -> dict[str, Any]:
    """SQuAD 2.0 as an object; 1.1 if all have an answer."""
    paragraphs = []
    for number, (question, context, answer) in enumerate(questions):
        record: dict[str, Any] = {"id": f"q{number}", "question": question}
        if labelled:
            known = [] if answer is None else [{"text": answer, "answer_start": context.find(answer)}]
            record |= {"answers": known} | ({"is_impossible": True} if answer is None else {})
        paragraphs.append({"context": context, "qas": [record]})
    return {"data": [{"paragraphs": paragraphs}]}


def mrqa(questions: Sequence[tuple[str, str, str]]) -> str:
    """MRQA's lines, with a header."""
    lines: list[dict[str, Any]] = [{"header": {"dataset": "x"}}]
    for number, (question, context, answer) in enumerate(questions):
        start = context.find(answer)
        detected = [{"text": answer, "char_spans": [[start, start + len(answer) - 1]]}]
        entry = {"qid": f"q{number}", "question": question, "answers": [answer], "detected_answers": detected}
        lines.append({"context": context, "qas": [entry]})
    return "".join(json.dumps(line) + "\n" for line in lines)


def written(path: Path, content: str | dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def made(name: str, folder: Path | None, *, length: int = 24, **changes: Any) -> QATask:
    data_dir = None if folder is None else str(folder)
    options = task_options(name, data_dir=data_dir, length=length, doc_stride=4, **changes)
    return make_qa_task(options, VOCABULARY)


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
    assert all(row.keys() == names | {"example", "window"} for row in rows)
    assert all(array.dtype == np.int32 for row in rows for array in row.values())
    tokens = [VOCABULARY.tokens[token] for token in rows[1]["input_ids"]]
    assert tokens[rows[1]["start_positions"] : rows[1]["end_positions"] + 1] == ["1895", "-", "1943"]
    assert [(int(row["start_positions"]), int(row["is_impossible"])) for row in rows][3] == (0, 1)
    assert [int(row["example"]) for row in rows] == [0, 1, 2, 3, 4]
    assert task.rows(examples, training=False)[0].keys() == {
        "input_ids",
        "token_type_ids",
        "answer_mask",
        "example",
        "window",
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


def said(text: str, null_odds: float | None) -> Prediction:
    return Prediction((ScoredText(text, 1.0, 0.0, 0.0),), null_odds)


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

    def odds(**settings: Any) -> Prediction:
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
    assert joint.to_json() == {
        "answer": "John Smith",
        "probability": 1.0,
        "nbest": [dataclasses.asdict(entry) for entry in joint.nbest],
        "null_odds": joint.null_odds,
        "null_threshold": 0.0,
    }


def test_questions_that_cannot_be_learnt_are_counted(tmp_path: Path) -> None:
    bad = [("Who?", CONTEXT, "Jane Doe"), ("When?", CONTEXT, "")]
    written(tmp_path / "squad_v1/train.json", squad([*QUESTIONS[:2], *bad]))
    written(tmp_path / "squad_v1/dev.json", squad([*QUESTIONS[:2], *bad]))
    task = made("squad_v1", tmp_path)
    train = task.examples("train")
    assert [example.example_id for example in train.examples] == ["q0", "q1"]
    assert train.skipped == {"the answer is not in its context": 1, "the answer is empty": 1}
    # The dev split is scored whole.
    dev = task.examples("dev")
    assert (len(dev.examples), dev.skipped.total()) == (4, 0)
    assert {int(row["example"]) for row in task.rows(dev.examples, training=True)} == {0, 1}
    written(tmp_path / "squad_v1/train.json", squad(bad))
    with pytest.raises(UserError, match=r"none of the training questions can be learnt \(the answer is not in its"):
        task.examples("train")


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
    task = qa_task_from_facts(json.loads(json.dumps(made_task.describe())), VOCABULARY)
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
    start = time.monotonic()
    examples = task.raw_examples([{"question": "Where did he live?", "context": context}])
    rows = task.rows(examples, training=False)
    outputs = [outputs_of(row, (len(row["input_ids"]) - 2,) * 2, joint=True, score=1, answerable=0) for row in rows]
    outputs[-1]["start_top_log_probs"] = outputs[-1]["start_top_log_probs"] + 1
    (prediction,) = task.predictions(examples, rows, outputs)
    assert prediction.text == "Houston"
    assert time.monotonic() - start < 20


def test_files_by_folder_by_path_and_none(tmp_path: Path) -> None:
    text = json.dumps(squad(QUESTIONS[:2]))
    (tmp_path / "squadv1").mkdir()
    (tmp_path / "squadv1/train.json.gz").write_bytes(gzip.compress(text.encode()))
    named = written(tmp_path / "elsewhere/my.json", squad(QUESTIONS[:1]))
    task = made("squad_v1", tmp_path, dev_file=str(named))
    assert task.splits == ("train", "dev")
    assert [len(task.examples(split).examples) for split in task.splits] == [2, 1]
    with pytest.raises(
        UserError, match=r"squad_v1 has no test split: it is not in .*squad_v1/\{train,dev,test\}\.json"
    ):
        task.examples("test")
    with pytest.raises(UserError, match="has no dev split: DATA_DIR is not set"):
        made("newsqa", None).examples("dev")
    with pytest.raises(UserError, match=r"absent\.json cannot be read"):
        made("squad_v1", None, dev_file=str(tmp_path / "absent.json")).examples("dev")
    written(named, " \n")
    with pytest.raises(UserError, match=r"my\.json is empty"):
        task.examples("dev")
    with pytest.raises(UserError, match="TFDS has no dataset of the task 'qa'"):
        made("qa", None, source="tfds")
    with pytest.raises(UserError, match="SOURCE is 'web'"):
        made("squad_v1", None, source="web")


def test_ones_own_questions_divided_by_context_and_scored_as_they_are_marked(tmp_path: Path) -> None:
    contexts = [f"{'he ' * number}Houston" for number in range(1, 21)]
    questions = [("Where?", context, "Houston") for context in contexts for _ in range(2)]
    file = str(written(tmp_path / "mine.json", squad(questions)))
    task = made("qa", None, train_file=file, dev_fraction=0.3)
    assert (task.splits, task.scoring) == (("train", "dev"), "squad_v1")
    parts = [{example.context for example in task.examples(split).examples} for split in task.splits]
    assert parts[0] | parts[1] == set(contexts)
    assert not parts[0] & parts[1]
    assert 1 <= len(parts[1]) <= 10
    # Even of two contexts one goes to each side.
    written(tmp_path / "mine.json", squad(questions[:4]))
    assert [len(task.examples(split).examples) for split in task.splits] == [2, 2]
    written(tmp_path / "mine.json", squad(questions[:2]))
    with pytest.raises(UserError, match="cannot divide 2 training examples"):
        task.examples("train")
    written(tmp_path / "mine.json", squad([*questions, QUESTIONS[3]]))
    assert made("qa", None, train_file=file, dev_fraction=0.3).scoring == "squad_v2"


def prepared(name: str, folder: Path, splits: dict[str, list[dict[str, Any]]]) -> None:
    """Leaves records under `folder` as TFDS's own builder of `name` would."""
    builder = tfds.builder(name, data_dir=str(folder))
    data_dir = Path(builder.data_dir)
    data_dir.mkdir(parents=True)
    features = builder.info.features
    for split, records in splits.items():
        with tf.io.TFRecordWriter(str(data_dir / f"{builder.name}-{split}.tfrecord-00000-of-00001")) as writer:
            for record in records:
                writer.write(features.serialize_example(features.encode_example(record)))
    tfds.folder_dataset.write_metadata(
        data_dir=str(data_dir),
        features=features,
        split_infos=[
            tfds.core.SplitInfo(name=split, shard_lengths=[len(records)], num_bytes=1)
            for split, records in splits.items()
        ],
        filename_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    )


def test_tfds_has_the_same_questions_as_the_files(tmp_path: Path) -> None:
    written(tmp_path / "dev.json", squad(QUESTIONS))
    written(tmp_path / "newsqa/dev.jsonl", mrqa(QUESTIONS[:2]))
    from_files = made("squad_v2", tmp_path).examples("dev").examples
    records = [
        {
            "id": example.example_id,
            "title": "",
            "context": example.context,
            "question": example.question,
            "is_impossible": example.is_impossible,
            "plausible_answers": {"text": [], "answer_start": []},
            "answers": {
                "text": list(example.gold_texts),
                "answer_start": [answer.start for answer in example.answers],
            },
        }
        for example in from_files
    ]
    prepared("squad/v2.0", tmp_path / "tfds", {"train": records[:1], "validation": records})
    task = made("squad_v2", None, source="tfds", tfds_data_dir=str(tmp_path / "tfds"))
    assert task.splits == ("train", "dev")
    assert task.examples("dev").examples == from_files
    with pytest.raises(UserError, match=r"squad_v2 has no test split: TFDS's squad/v2\.0 has only"):
        task.examples("test")

    from_files = made("newsqa", tmp_path).examples("dev").examples
    empty = {"tokens": [], "offsets": []}
    records = [
        {
            "subset": "x",
            "qid": example.example_id,
            "context": example.context,
            "question": example.question,
            "context_tokens": empty,
            "question_tokens": empty,
            "answers": list(example.gold_texts),
            "detected_answers": [
                {
                    "text": answer.text,
                    "char_spans": [{"start": answer.start, "end": answer.end - 1}] * 2,
                    "token_spans": [],
                }
                for answer in example.answers
            ],
        }
        for example in from_files
    ]
    prepared("mrqa/news_qa", tmp_path / "tfds", {"validation": records})
    twice = [dataclasses.replace(example, answers=example.answers * 2) for example in from_files]
    task = made("newsqa", None, source="tfds", tfds_data_dir=str(tmp_path / "tfds"))
    assert task.examples("dev").examples == twice


@pytest.mark.skipif(not SQUAD.exists(), reason=f"no SQuAD at {SQUAD}")
@pytest.mark.parametrize(
    ("name", "train", "dev"),
    [("squad_v1", ("split-train-v1.1", 8305), ("split-dev-v1.1", 2265)),
     ("squad_v1", ("train-subset-v1.1", 4330), None),
     ("squad_v2", ("split-train-v2.0", 9051), ("split-dev-v2.0", 2822))],
)  # fmt: skip
def test_real_files_have_the_published_counts(name: str, train: tuple[str, int], dev: tuple[str, int] | None) -> None:
    options = task_options(name, train_file=str(SQUAD / f"{train[0]}.json"))
    if dev is not None:
        options = dataclasses.replace(options, dev_file=str(SQUAD / f"{dev[0]}.json"))
    task = make_qa_task(options, VOCABULARY)
    found = task.examples("train")
    # An answer without a piece of this small vocabulary is [UNK], but in its place.
    assert (len(found.examples), found.skipped) == (train[1], {})
    if dev is not None:
        assert len(task.examples("dev").examples) == dev[1]
