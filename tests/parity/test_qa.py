"""Compare windows, decoding, final texts and scores of question answering with every recorded case."""

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from electra_jax.tasks.original.qa import RULES, project, split_words, word_span, words_of_tokens
from electra_jax.tasks.probabilities import softmax
from electra_jax.tasks.qa import decoding
from electra_jax.tasks.qa import metrics as qa_metrics
from electra_jax.tasks.qa.answers import (
    TokenizedContext,
    UnusableAnswerError,
    tokenize_context,
)
from electra_jax.tasks.qa.files import read_mrqa, read_squad
from electra_jax.tasks.qa.questions import QAExample
from electra_jax.tasks.qa.windows import Window, WindowConfig, max_context_spans, prediction_windows, training_windows
from electra_jax.tasks.vocabulary import Vocabulary
from support.shared import ORACLE, skipped

ROOT = ORACLE / "finetune"
FEATURE_CASES = [
    pytest.param(path, name, id=f"{path.stem}:{name}")
    for path in sorted(ROOT.glob("qa_features*.json"))
    for name in json.loads(path.read_text())
] or [skipped(ROOT, None, None)]


def _files(pattern: str) -> list[Any]:
    return [pytest.param(path, id=path.stem) for path in sorted(ROOT.glob(pattern))] or [skipped(ROOT / pattern)]


@functools.cache
def _vocabulary(lowercase: bool) -> Vocabulary:
    tokens = (ROOT / "data" / "vocab.txt").read_text().rstrip("\n").split("\n")
    return Vocabulary(tokens, lowercase=lowercase, strip_accents=lowercase)


@functools.cache
def _examples(task: str, split: str) -> list[QAExample]:
    folder = ROOT / "data" / "finetuning_data" / task
    if (folder / f"{split}.jsonl").exists():
        return read_mrqa(str(folder / f"{split}.jsonl"), skip_bad_rows=False).examples
    return read_squad(str(folder / f"{split}.json"), skip_bad_rows=False).examples


def _window_config(options: dict[str, Any]) -> WindowConfig:
    return WindowConfig(
        max_sequence_length=options["max_seq_length"],
        max_question_length=options["max_query_length"],
        doc_stride=options["doc_stride"],
        rules=RULES,
    )


def _recorded_form(window: Window, context: TokenizedContext, vocabulary: Vocabulary, length: int) -> dict[str, Any]:
    """Return a window with the original's fields, but without those that only repeat the name of its task."""
    num_tokens = len(window.input_ids_L)
    words_T = words_of_tokens(context)
    pieces = range(len(window.offsets_C2))

    def padded(values_L: np.ndarray) -> list[int]:
        return np.pad(values_L, (0, length - num_tokens)).tolist()

    form = {
        "input_ids": padded(window.input_ids_L),
        "input_mask": padded(window.features()["attention_mask"]),
        "segment_ids": padded(window.token_type_ids_L),
        "doc_span_index": window.index,
        "tokens": [vocabulary.tokens[token] for token in window.input_ids_L],
        "token_to_orig_map": {
            str(window.context_start + piece): int(words_T[window.first_piece + piece]) for piece in pieces
        },
        "token_is_max_context": {
            str(window.context_start + piece): bool(window.is_max_context_C[piece]) for piece in pieces
        },
    }
    if window.is_impossible is not None:
        form["start_positions"] = window.start_position
        form["end_positions"] = window.end_position
        form["is_impossible"] = window.is_impossible
    return form


def _check_features(
    recorded: dict[str, Any], windows: list[Window], example: QAExample, number: int, task: str, options: dict[str, Any]
) -> None:
    vocabulary = _vocabulary(options.get("do_lower_case", True))
    assert [feature[f"{task}_eid"] for feature in recorded["features"]] == [
        1000 * number + window.index for window in windows
    ]
    context = tokenize_context(vocabulary, example.context)
    for feature, window in zip(recorded["features"], windows, strict=True):
        form = _recorded_form(window, context, vocabulary, options["max_seq_length"])
        feature = {name.removeprefix(f"{task}_"): value for name, value in feature.items()}
        # The original notes where pieces come from for prediction only; what is noted must agree.
        shared = feature.keys() & form.keys()
        assert shared >= {"input_ids", "input_mask", "segment_ids"}
        assert feature.keys() - shared <= {"task_id", "eid"}
        assert {name: feature[name] for name in shared} == {name: form[name] for name in shared}


def _check_example(recorded: dict[str, Any], example: QAExample) -> None:
    assert example.example_id in (recorded["qas_id"], recorded["qid"])
    assert recorded["question_text"] == example.question
    assert recorded["doc_tokens"] == split_words(example.context).words
    assert recorded["is_impossible"] == example.is_impossible or recorded["orig_answer_text"] is None


@pytest.mark.parametrize(("file", "name"), FEATURE_CASES)
def test_training_windows(file: Path, name: str) -> None:
    case = json.loads(file.read_text())[name]
    options, task = case["config"], name.split("/")[-1]
    examples = {example.example_id: example for example in _examples(task, "train")}
    vocabulary = _vocabulary(options.get("do_lower_case", True))
    learnt, num_unusable = [], 0
    for example in examples.values():
        try:
            learnt.append(training_windows(example, vocabulary, _window_config(options)))
        except UnusableAnswerError:
            num_unusable += 1
    for number, (recorded, windows) in enumerate(zip(case["train"], learnt, strict=True)):
        names = recorded["example"]
        example = examples[names["qas_id"] or names["qid"]]
        _check_example(names, example)
        if not example.is_impossible:
            assert (names["start_position"], names["end_position"]) == word_span(example.context, example.answers[0])
            assert names["orig_answer_text"] == example.answers[0].text
        _check_features(recorded, windows, example, number, task, options)
    failures = re.search(r"(\d+) examples created, (\d+) failures", case["log"])
    assert failures
    assert num_unusable == int(failures[2])


@pytest.mark.parametrize(("file", "name"), FEATURE_CASES)
def test_prediction_windows(file: Path, name: str) -> None:
    case = json.loads(file.read_text())[name]
    options, task = case["config"], name.split("/")[-1]
    vocabulary = _vocabulary(options.get("do_lower_case", True))
    for number, (recorded, example) in enumerate(zip(case["dev"], _examples(task, "dev"), strict=True)):
        _check_example(recorded["example"], example)
        windows = prediction_windows(example, vocabulary, _window_config(options))
        _check_features(recorded, windows, example, number, task, options)


@pytest.mark.parametrize("file", _files("qa_max_context*.json"))
def test_max_context(file: Path) -> None:
    for case in json.loads(file.read_text()):
        spans = [tuple(span) for span in case["spans"]]
        best_T = max_context_spans(spans, max(start + length for start, length in spans))[: len(case["table"])]
        assert (best_T[:, None] == np.arange(len(spans))).tolist() == case["table"]


@pytest.mark.parametrize("file", _files("qa_final_text*.json"))
def test_final_text(file: Path) -> None:
    for case in json.loads(file.read_text()):
        if "pred" in case:
            assert project(case["pred"], case["orig"], _vocabulary(True).tokenizer) == case["final"]
            assert project(case["pred"], case["orig"], _vocabulary(False).tokenizer) == case["final_cased"]
        elif "softmax_in" in case:
            np.testing.assert_allclose(softmax(np.array(case["softmax_in"])), case["softmax_out"], 1e-15)
        else:
            assert decoding.best_indices(np.array(case["best_in"]), case["n"]).tolist() == case["best_out"]


def _candidates(outputs: dict[str, np.ndarray], row: int, options: dict[str, Any]) -> decoding.Candidates:
    if options["joint_prediction"]:
        return decoding.joint_candidates(
            start_index_K=outputs["out/start_top_index"][row],
            start_log_probs_K=outputs["out/start_top_log_probs"][row],
            end_index_KK=outputs["out/end_top_index"][row],
            end_log_probs_KK=outputs["out/end_top_log_probs"][row],
        )
    return decoding.independent_candidates(
        start_logits_L=outputs["out/start_logits"][row],
        end_logits_L=outputs["out/end_logits"][row],
        n_best_size=options["n_best_size"],
    )


def _null_score(outputs: dict[str, np.ndarray], row: int, options: dict[str, Any]) -> float:
    if options["answerable_classifier"]:
        return outputs["out/answerable_logit"][row]
    return outputs["out/start_logits"][row, 0] + outputs["out/end_logits"][row, 0]


def _decode(case: dict[str, Any], file: Path, task: str) -> dict[str, decoding.QAPrediction]:
    options = case["config"]
    vocabulary = _vocabulary(options.get("do_lower_case", True))
    config = decoding.DecodingConfig(
        n_best_size=options["n_best_size"],
        max_answer_length=options["max_answer_length"],
        null_odds_against_best_span=not options["answerable_classifier"],
        rules=RULES,
    )
    with np.load(file.with_suffix(".npz")) as archive:
        outputs = dict(archive)
    row_of = {eid: row for row, eid in enumerate(outputs["out/eid"].tolist())}
    predictions = {}
    for number, example in enumerate(_examples(task, "dev")):
        windows = prediction_windows(example, vocabulary, _window_config(options))
        rows = [row_of[1000 * number + window.index] for window in windows]
        spans = [_candidates(outputs, row, options) for row in rows]
        null_scores = [_null_score(outputs, row, options) for row in rows] if case.get("null_scores") else None
        predictions[example.example_id] = decoding.decode(example, windows, spans, null_scores, vocabulary, config)
    return predictions


@pytest.mark.parametrize("file", _files("qa_decode_*.json"))
def test_decoding_and_its_score(file: Path, tmp_path: Path) -> None:
    case = json.loads(file.read_text())
    task = next(part for part in reversed(file.stem.split("_")) if (ROOT / "data/finetuning_data" / part).is_dir())
    predictions = _decode(case, file, task)
    files = decoding.write_predictions(predictions, str(tmp_path), null_threshold=None)
    written = {path.name: json.loads(path.read_text()) for path in files}
    assert written["predictions.json"] == case["predictions"]
    assert written.get("null_odds.json", {}) == (case.get("null_scores") or {})
    assert written["nbest.json"].keys() == case["nbest"].keys()
    for example_id, entries in case["nbest"].items():
        mine = written["nbest.json"][example_id]
        # The recorded exponentials are those of another NumPy, to the last bit of float32.
        np.testing.assert_allclose(_pop(mine, "probability"), _pop(entries, "probability"), 5e-7)
        assert mine == entries
    if "official_results" not in case:
        return
    gold = qa_metrics.gold_of(_examples(task, "dev"))
    assert _score(task, gold, written, case["config"]) == dict(case["official_results"])


def _pop(entries: list[dict[str, Any]], field: str) -> list[float]:
    return [entry.pop(field) for entry in entries]


def _score(task: str, gold: qa_metrics.Gold, written: dict[str, Any], options: dict[str, Any]) -> dict[str, float]:
    predictions = written["predictions.json"]
    if task == "squad":
        return qa_metrics.squad_v2_metrics(
            gold, predictions, null_odds=written["null_odds.json"], null_threshold=options["qa_na_threshold"]
        )
    if task == "squadv1":
        return qa_metrics.squad_v1_metrics(gold, predictions)
    return qa_metrics.mrqa_metrics(gold, predictions, skip_unanswered=True)


def _gold(dataset: list[Any]) -> list[tuple[str, list[str]]]:
    questions = (
        question for article in dataset for paragraph in article["paragraphs"] for question in paragraph["qas"]
    )
    return [(question["id"], [answer["text"] for answer in question["answers"]]) for question in questions]


@pytest.mark.parametrize("file", _files("squad_eval*.json"))
def test_squad_v2_scores(file: Path) -> None:
    case = json.loads(file.read_text())
    gold = _gold(case["dataset"])
    assert qa_metrics.squad_v2_raw_scores(gold, case["preds"]) == (case["v2_raw_exact"], case["v2_raw_f1"])
    assert qa_metrics.best_thresholds(gold, case["preds"], case["na"]) == case["v2_best"]
    for threshold, expected in case["v2_thresholded"].items():
        metrics = qa_metrics.squad_v2_metrics(
            gold, case["preds"], null_odds=case["na"], null_threshold=float(threshold)
        )
        assert metrics == expected | case["v2_best"]


@pytest.mark.parametrize("file", _files("squad_eval*.json"))
def test_scores_without_null_answers(file: Path) -> None:
    case = json.loads(file.read_text())
    gold = [(example_id, texts) for example_id, texts in _gold(case["dataset"]) if texts]
    predictions = case["preds"]
    assert qa_metrics.squad_v1_metrics(gold, predictions) == case["v1"]
    for skip in (True, False):
        recorded = case[f"mrqa_skip_no_answer_{str(skip).lower()}"]
        assert qa_metrics.mrqa_metrics(gold, predictions, skip_unanswered=skip) == recorded

    def best(score: Callable[[str, str], float], example_id: str) -> float:
        return max(score(predictions[example_id], text) for text in dict(gold)[example_id])

    for example_id, scores in case["v1_per_q"].items():
        assert best(qa_metrics.exact_match, example_id) == scores["em"]
        assert best(qa_metrics.f1, example_id) == scores["f1"]
    for text, *normalized in case["normalize_answer"]:
        assert {qa_metrics.normalize_answer(text)} == set(normalized)
