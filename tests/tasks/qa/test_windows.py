"""Question answering: answers by characters, windows, decoding and scores, by hand-worked cases and on SQuAD."""

import collections
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.original.qa import RULES as ORIGINAL_RULES
from electra_jax.tasks.original.qa import projected_span_text
from electra_jax.tasks.qa import decoding as qa_decoding
from electra_jax.tasks.qa import metrics
from electra_jax.tasks.qa.answers import UnusableAnswerError, align_by_characters, locate_answer, tokenize_context
from electra_jax.tasks.qa.decoding import Candidates, DecodingConfig, QAPrediction, ScoredText, decode
from electra_jax.tasks.qa.files import read_null_odds, read_predictions, read_squad
from electra_jax.tasks.qa.questions import Answer, QAExample
from electra_jax.tasks.qa.windows import (
    STANDARD_RULES,
    Window,
    WindowConfig,
    max_context_spans,
    prediction_windows,
    span_text,
    training_windows,
)
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.vocabulary import Vocabulary
from support.shared import DATA, existing

CONTEXT = "The leader was John Smith (1895-1943). He liked  double  spaces."
WORDS = "the leader was john smith ( 1895 - 1943 ) . he liked double spaces when did live ? japanese cafe houston texas"
VOCABULARY = Vocabulary([*SPECIAL_TOKENS, *WORDS.split()], lowercase=True, strip_accents=True)
SOUND = WindowConfig(
    max_sequence_length=64,
    max_question_length=8,
    doc_stride=4,
    rules=STANDARD_RULES,
)
DECODING = DecodingConfig(n_best_size=3, max_answer_length=4, null_odds_against_best_span=False, rules=STANDARD_RULES)


def _example(context: str = CONTEXT, answer: str | None = "1895-1943", start: int | None = None) -> QAExample:
    answers = ()
    if answer is not None:
        start = context.index(answer) if start is None else start
        answers = (Answer(answer, start, start + len(answer)),)
    texts = tuple(each.text for each in answers)
    return QAExample("q", "When did he live?", context, answers, texts, is_impossible=answer is None)


def _tokens(window: Window) -> list[str]:
    return [VOCABULARY.tokens[token] for token in window.input_ids_L.tolist()]


@pytest.mark.parametrize(
    ("answer", "start", "expected"),
    [
        ("1895", 27, (27, 31)),
        ("he", 30, (39, 41)),  # misplaced: the nearest of "The", "he(r)", "He"
        ("THE", 0, (0, 3)),
        ("double spaces", 40, (49, 63)),  # two spaces in the context
    ],
)
def test_answers_are_found_where_they_are(answer: str, start: int, expected: tuple[int, int]) -> None:
    assert locate_answer(CONTEXT, Answer(answer, start, start + len(answer))) == expected


@pytest.mark.parametrize(("answer", "start"), [("not there", 5), ("1943 and more", 900), ("x", -7)])
def test_answers_that_are_nowhere_cannot_be_learnt(answer: str, start: int) -> None:
    for rules in (STANDARD_RULES, ORIGINAL_RULES):
        config = dataclasses.replace(SOUND, rules=rules)
        assert training_windows(_example(), VOCABULARY, config)
        with pytest.raises(UnusableAnswerError, match="context"):
            training_windows(_example(answer=answer, start=start), VOCABULARY, config)


def test_window_by_hand() -> None:
    (window,) = training_windows(_example(), VOCABULARY, SOUND)
    question, context = ["when", "did", "he", "live", "?"], [*WORDS.split()[:15], "."]
    assert _tokens(window) == ["[CLS]", *question, "[SEP]", *context, "[SEP]"]
    features = window.features()
    assert features["token_type_ids"].tolist() == [0] * 7 + [1] * 17
    assert features["attention_mask"].tolist() == [1] * 24
    assert features["answer_mask"].tolist() == [1] + [0] * 6 + [1] * 16 + [0]
    assert _tokens(window)[features["start_positions"] : features["end_positions"] + 1] == ["1895", "-", "1943"]
    assert features["is_impossible"] == 0
    assert {array.dtype for array in features.values()} == {np.dtype(np.int32)}
    original = dataclasses.replace(SOUND, rules=ORIGINAL_RULES)
    assert training_windows(_example(), VOCABULARY, original)[0].features()["answer_mask"][-1] == 1


def test_windows_slide_and_each_piece_is_best_in_one() -> None:
    config = dataclasses.replace(SOUND, max_sequence_length=14, max_question_length=5)
    windows = prediction_windows(_example(), VOCABULARY, config)
    assert [(window.first_piece, len(window.offsets_C2)) for window in windows] == [(0, 6), (4, 6), (8, 6), (12, 4)]
    best = np.concatenate([window.first_piece + np.flatnonzero(window.is_max_context_C) for window in windows])
    assert sorted(best.tolist()) == list(range(16))
    for window in windows:
        covered = [CONTEXT[start:end].lower() for start, end in window.offsets_C2]
        assert covered == _tokens(window)[window.context_start : -1]


def test_the_first_of_equally_good_windows_is_taken() -> None:
    # Tokens 2 and 3 have 2 and 1 beside them in the first, 1 and 2 in the second.
    assert max_context_spans([(0, 5), (1, 4)], 6).tolist() == [0, 0, 0, 0, 0, -1]
    assert max_context_spans([(0, 4), (1, 4)], 5).tolist() == [0, 0, 0, 1, 1]
    assert max_context_spans([(0, 2), (1, 2)], 3).tolist() == [0, 0, 1]


def test_windows_without_the_answer_are_impossible_unless_as_the_original() -> None:
    config = dataclasses.replace(SOUND, max_sequence_length=14, max_question_length=5)
    windows = training_windows(_example(), VOCABULARY, config)
    targets = [(window.start_position, window.end_position, window.is_impossible) for window in windows]
    # Pieces 6 to 8 are the answer; the third window holds only its end.
    assert targets == [(0, 0, True), (9, 11, False), (0, 0, True), (0, 0, True)]
    original = dataclasses.replace(config, rules=ORIGINAL_RULES)
    assert not any(window.is_impossible for window in training_windows(_example(), VOCABULARY, original))
    assert all(window.is_impossible for window in training_windows(_example(answer=None), VOCABULARY, original))


def test_stride_beyond_the_window_still_overlaps_unless_as_the_original() -> None:
    config = dataclasses.replace(SOUND, max_sequence_length=14, doc_stride=128)
    starts = [window.first_piece for window in prediction_windows(_example(), VOCABULARY, config)]
    assert starts == [0, 3, 6, 9, 12]
    original = dataclasses.replace(config, rules=ORIGINAL_RULES)
    assert [window.first_piece for window in prediction_windows(_example(), VOCABULARY, original)] == [0, 6, 12]


def test_context_without_word_pieces_still_gets_an_answer() -> None:
    example = _example(" \n", answer=None)
    (window,) = training_windows(example, VOCABULARY, SOUND)
    assert _tokens(window)[-2:] == ["[SEP]", "[SEP]"]
    assert (window.start_position, window.is_impossible) == (0, True)
    scores = np.zeros(len(window.input_ids_L), np.float32)
    spans = qa_decoding.independent_candidates(start_logits_L=scores, end_logits_L=scores, n_best_size=20)
    assert decode(example, [window], [spans], [1.5], VOCABULARY, DECODING) == QAPrediction(
        (ScoredText("", 1, 0, 0),), 1.5
    )
    original = dataclasses.replace(SOUND, rules=ORIGINAL_RULES)
    assert prediction_windows(example, VOCABULARY, original) == []
    as_original = dataclasses.replace(DECODING, rules=ORIGINAL_RULES)
    assert decode(example, [], [], [], VOCABULARY, as_original).text == "empty"


def test_long_context_and_question_without_room() -> None:
    context = "the leader was " * 33_333 + "smith"
    example = _example(context, "smith")
    windows = training_windows(example, VOCABULARY, dataclasses.replace(SOUND, max_sequence_length=512, doc_stride=128))
    assert len(windows) > 700
    assert not windows[-1].is_impossible
    assert span_text(context, windows[-1], windows[-1].start_position, windows[-1].end_position, VOCABULARY) == "smith"
    with pytest.raises(UserError, match="leave no room"):
        prediction_windows(example, VOCABULARY, dataclasses.replace(SOUND, max_sequence_length=8))
    with pytest.raises(UserError, match="doc_stride = 0"):
        dataclasses.replace(SOUND, doc_stride=0)


def test_characters_recover_what_words_lose() -> None:
    context = "Houston,\xa0Texas is the Cafe\u0301."
    example = _example(context, "Houston,\xa0Texas")
    original = dataclasses.replace(SOUND, rules=ORIGINAL_RULES)
    with pytest.raises(UnusableAnswerError, match="not in its context"):
        training_windows(example, VOCABULARY, original)
    (window,) = training_windows(example, VOCABULARY, SOUND)
    assert span_text(context, window, window.start_position, window.end_position, VOCABULARY) == "Houston,\xa0Texas"
    (window,) = training_windows(_example(context, "Cafe\u0301"), VOCABULARY, SOUND)
    assert span_text(context, window, window.start_position, window.end_position, VOCABULARY) == "Cafe\u0301"


def test_text_keeps_the_white_space_of_the_context_unless_as_the_original() -> None:
    (window,) = training_windows(_example(answer="double  spaces"), VOCABULARY, SOUND)
    span = (window.start_position, window.end_position)
    assert span_text(CONTEXT, window, *span, VOCABULARY) == "double  spaces"
    assert projected_span_text(CONTEXT, window, *span, VOCABULARY) == "double spaces"


def test_independent_spans_are_the_products_of_the_best() -> None:
    spans = qa_decoding.independent_candidates(
        start_logits_L=np.array([0, 3, 1], np.float32), end_logits_L=np.array([5, 4, 6], np.float32), n_best_size=2
    )
    assert list(zip(*dataclasses.astuple(spans), strict=True)) == [
        (1, 2, 3, 6),
        (1, 0, 3, 5),
        (2, 2, 1, 6),
        (2, 0, 1, 5),
    ]


def _spans(*spans: tuple[int, int, float]) -> Candidates:
    start, end, score = zip(*spans, strict=True)
    return Candidates(np.array(start), np.array(end), np.array(score, np.float32), np.zeros(len(score), np.float32))


def test_decoding_by_hand() -> None:
    config = dataclasses.replace(SOUND, max_sequence_length=14, max_question_length=5)
    windows = prediction_windows(_example(), VOCABULARY, config)
    assert windows[0].context_start == 7
    candidates = [
        _spans((0, 0, 9), (1, 2, 9), (6, 7, 9), (12, 13, 9), (10, 9, 9), (7, 11, 9), (12, 12, 9), (8, 9, 2)),
        _spans((9, 11, 3), (9, 9, 1), (99, 99, 9), (9, 11, 2.5)),
        _spans((11, 11, 2)),
        _spans((8, 8, 0)),
    ]
    # (12, 12) of the first window is piece 5, which stands deeper in the second one.
    prediction = decode(_example(), windows, candidates, [2.0, -1.0, 5.0, 0.0], VOCABULARY, DECODING)
    assert [entry.text for entry in prediction.nbest] == ["1895-1943", "leader was", "liked"]
    assert [entry.start_logit for entry in prediction.nbest] == [3, 2, 2]
    np.testing.assert_allclose([entry.probability for entry in prediction.nbest], np.array([np.e, 1, 1]) / (np.e + 2))
    # Characters of the whole context, whichever window they come from.
    assert [CONTEXT[entry.start : entry.end] for entry in prediction.nbest] == ["1895-1943", "leader was", "liked"]
    assert prediction.to_json() | {"nbest": []} == {
        "answer": "1895-1943",
        "start": CONTEXT.index("1895-1943"),
        "end": CONTEXT.index("1895-1943") + 9,
        "probability": prediction.nbest[0].probability,
        "null_odds": -1.0,
        "null_threshold": None,
        "nbest": [],
    }
    withheld = dataclasses.replace(prediction, null_threshold=-2.0).to_json()
    assert (withheld["answer"], withheld["start"], withheld["end"]) == ("", None, None)
    assert prediction.null_odds == -1.0
    relative = dataclasses.replace(DECODING, null_odds_against_best_span=True)
    assert decode(_example(), windows, candidates, [2.0, -1.0, 5.0, 0.0], VOCABULARY, relative).null_odds == -4.0
    assert decode(_example(), windows, candidates, None, VOCABULARY, DECODING).null_odds is None
    with pytest.raises(UserError, match=r"'q'.*NaN"):
        decode(_example(), windows, [_spans((9, 9, np.nan)), *candidates[1:]], None, VOCABULARY, DECODING)


def test_prediction_files_and_withheld_answers(tmp_path: Path) -> None:
    predictions = {
        "a": QAPrediction((ScoredText("x", 0.75, 2.0, 1.0), ScoredText("y", 0.25, 1.0, 1.0, 3, 4)), 0.5),
        "b": QAPrediction((ScoredText("z", 1.0, 0.0, 0.0),), -0.5),
    }
    qa_decoding.write_predictions(predictions, str(tmp_path / "out"), null_threshold=0.0)
    assert read_predictions(str(tmp_path / "out/predictions.json")) == {"a": "", "b": "z"}
    assert read_null_odds(str(tmp_path / "out/null_odds.json")) == {"a": 0.5, "b": -0.5}
    assert json.loads((tmp_path / "out/nbest.json").read_text())["a"][1] == {
        "text": "y",
        "probability": 0.25,
        "start_logit": 1.0,
        "end_logit": 1.0,
    }
    assert qa_decoding.final_answers(predictions, null_threshold=0.5) == {"a": "x", "b": "z"}
    assert qa_decoding.final_answers(predictions, null_threshold=None) == {"a": "x", "b": "z"}


@pytest.fixture(scope="module")
def bert_vocabulary() -> Vocabulary:
    file = existing(DATA / "vocab" / "bert-base-uncased-vocab.txt")
    return Vocabulary(file.read_text().rstrip("\n").split("\n"), lowercase=True, strip_accents=True)


def _gold_spans(
    example: QAExample, windows: list[Window], vocabulary: Vocabulary
) -> Iterator[tuple[Answer, tuple[int, int, int] | None]]:
    """Each answer with the first window that holds it, and its positions there."""
    context = tokenize_context(vocabulary, example.context)
    for answer in example.answers:
        first, last = align_by_characters(context, answer, VOCABULARY)
        inside = [
            (window.index, first - window.first_piece + window.context_start, last - first)
            for window in windows
            if window.first_piece <= first and last < window.first_piece + len(window.offsets_C2)
        ]
        # Deepest in: the window in which its start counts.
        best = [place for place in inside if _is_best(windows[place[0]], place[1])]
        index, start, extent = (best or inside or [(-1, 0, 0)])[0]
        yield answer, (None if index < 0 else (index, start, start + extent))


def _is_best(window: Window, position: int) -> bool:
    return bool(window.is_max_context_C[position - window.context_start])


@pytest.mark.parametrize("version", ["v1.1", "v2.0"])
@pytest.mark.parametrize("length", [128, 512])
def test_gold_answers_of_squad_survive(version: str, length: int, bert_vocabulary: Vocabulary) -> None:
    file = DATA / "squad" / f"split-dev-{version}.json"
    if not file.exists():
        pytest.skip(f"no SQuAD at {file}")
    config = dataclasses.replace(SOUND, max_sequence_length=length, max_question_length=64, doc_stride=128)
    decoding = dataclasses.replace(DECODING, n_best_size=20, max_answer_length=30)
    examples = read_squad(str(file), skip_bad_rows=False).examples
    reasons: dict[str, list[str]] = collections.defaultdict(list)
    predictions, odds = {}, {}
    for example in examples:
        windows = prediction_windows(example, bert_vocabulary, config)
        chosen: list[list[tuple[int, int, float]]] = [[] for _ in windows]
        for order, (answer, place) in enumerate(_gold_spans(example, windows, bert_vocabulary)):
            if place is None:
                reasons["in no window"].append(answer.text)
                continue
            index, start, end = place
            chosen[index].append((start, end, -order))
            text = span_text(example.context, windows[index], start, end, VOCABULARY)
            if text != answer.text:
                reasons["cuts a word piece"].append(f"{answer.text!r} in {text!r}")
        spans = [_spans(*window_spans) if window_spans else _spans((0, 0, 0)) for window_spans in chosen]
        null_score = 1.0 if example.is_impossible else -1.0
        prediction = decode(example, windows, spans, [null_score] * len(windows), bert_vocabulary, decoding)
        predictions[example.example_id], odds[example.example_id] = prediction.text, prediction.null_odds
    num_answers = sum(len(example.answers) for example in examples)
    print(f"SQuAD {version} at {length}: of {num_answers} answers all are recovered but {dict(reasons)}")
    assert not reasons["in no window"]
    assert len(reasons["cuts a word piece"]) < 0.005 * num_answers
    scores = metrics.squad_v2_metrics(metrics.gold_of(examples), predictions, null_odds=odds, null_threshold=0.0)
    assert scores["f1"] > 99.5
