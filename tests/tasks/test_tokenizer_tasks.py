"""Downstream tasks over any tokenizer: rows as the library makes them, answers and words by their characters."""

import itertools
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from electra_jax.errors import UserError
from electra_jax.tasks.catalog import make_task
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.qa.questions import Answer, QAExample
from electra_jax.tasks.qa.windows import STANDARD_RULES, WindowConfig, span_text, training_windows
from electra_jax.tasks.tagging.sentences import complete_positions
from electra_jax.tasks.tokenizer_file import load_tokenizer
from electra_jax.tasks.vocabulary import Vocabulary
from support.text_rows import text_features
from support.tokenizers import NASTY, SHAPES, tokenizer_json, write_tokenizer_json


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def vocabulary(shape: str, tmp_path: Path) -> Vocabulary:
    return load_tokenizer(write_tokenizer_json(tmp_path, shape), lowercase=None)


def test_rows_of_texts_and_pairs_are_those_of_the_library(shape: str, vocabulary: Vocabulary) -> None:
    library = Tokenizer.from_str(tokenizer_json(shape))
    texts = [text for text in NASTY if text.strip()]
    pairs = list(itertools.pairwise(texts))
    for (ids, types), text in zip(
        text_features([(text, None) for text in texts], vocabulary=vocabulary, length=10_000), texts, strict=True
    ):
        assert ids == library.encode(text).ids
        assert set(types) == {0}
    for (ids, types), pair in zip(text_features(pairs, vocabulary=vocabulary, length=10_000), pairs, strict=True):
        expected = library.encode(*pair)
        assert ids == expected.ids
        # The library gives RoBERTa's second text type 0; ours is 1 for every tokenizer.
        assert types == [
            int(sequence == 1 or place == len(ids) - 1) for place, sequence in enumerate(expected.sequence_ids)
        ]


def test_pairs_are_cut_to_the_length(vocabulary: Vocabulary) -> None:
    (row,) = text_features([("the cat sat on the mat", "the dog sat on the log")], vocabulary=vocabulary, length=12)
    assert len(row.input_ids) == len(row.token_type_ids) == 12
    assert row.input_ids[-1] == vocabulary.sep_id
    assert sum(index == vocabulary.sep_id for index in row.input_ids) == 1 + len(vocabulary.between_ids)


CONTEXTS = [
    ("Ann works in New York. Bob Smith lives in Paris, France.", ["Ann", "New York", "Bob Smith", "Paris", "France"]),
    ("Le garçon  naïf a mangé.\n\tL'été était chaud.", ["garçon", "naïf", "L'été", "chaud"]),
    ("हिन्दी में मात्राएँ होती हैं।", ["हिन्दी", "मात्राएँ"]),
    ("我是一个学生。한국어 문장입니다.", ["学生", "한국어"]),
    ("a👩‍👩‍👧 b ΟΔΥΣΣΕΥΣ ﬁ the cat", ["ΟΔΥΣΣΕΥΣ", "the cat"]),
]


@pytest.mark.parametrize(("context", "answers"), CONTEXTS)
def test_answers_are_found_again_by_their_characters(context: str, answers: list[str], vocabulary: Vocabulary) -> None:
    config = WindowConfig(max_sequence_length=400, max_question_length=8, doc_stride=64, rules=STANDARD_RULES)
    for text in answers:
        start = context.index(text)
        answer = Answer(text, start, start + len(text))
        example = QAExample("q", "who?", context, (answer,), (text,), False)
        (window,) = training_windows(example, vocabulary, config)
        assert not window.is_impossible
        found = span_text(context, window, window.start_position, window.end_position, vocabulary)
        # No more than the word around it; never the space before.
        assert text in found
        assert found == found.strip()
        if start == 0 or context[start - 1].isspace():
            assert found.startswith(text)
    sep = window.input_ids_L.tolist().index(vocabulary.sep_id)
    assert window.context_start == sep + len(vocabulary.between_ids)
    assert window.answer_mask_L.sum() == 1 + len(window.offsets_C2)
    assert window.answer_mask_L[window.context_start :].tolist() == [1] * len(window.offsets_C2) + [0]
    assert window.token_type_ids_L.tolist() == [0] * window.context_start + [1] * (len(window.offsets_C2) + 1)


def test_words_stand_where_their_first_piece_does(shape: str, vocabulary: Vocabulary) -> None:
    words = ["Ann", "works", "in", "我是", "\u200b", "New", "York", ",", "naïve"]
    ids, positions = complete_positions(words, vocabulary, 400)
    assert (ids[0], ids[-1]) == (vocabulary.cls_id, vocabulary.sep_id)
    assert len(positions) == len(words)
    assert positions == sorted(set(positions))
    library = Tokenizer.from_str(tokenizer_json(shape))
    expected = library.encode(" ".join(words), add_special_tokens=False)
    if len(expected.ids) == len(ids) - 2:
        assert expected.ids == ids[1:-1]
        text, place = " ".join(words), 0
        for word, position in zip(words, positions, strict=True):
            start, end = expected.offsets[position - 1]
            assert start <= text.index(word, place) + len(word) - 1
            assert end > text.index(word, place) or not text[start:end].strip()
            place = text.index(word, place) + len(word)
    else:
        assert ids[positions[4]] == vocabulary.unk_id
    cut, kept = complete_positions(words, vocabulary, 6)
    assert len(cut) == 6
    assert kept == [position for position in positions if position < 5]


@pytest.mark.parametrize("task", ["squad_v1", "chunk"])
def test_the_originals_rules_are_for_berts_word_pieces(task: str, tmp_path: Path) -> None:
    from electra_jax.config import gin_files

    vocabulary = load_tokenizer(write_tokenizer_json(tmp_path, "albert"), lowercase=None)
    bindings = [f"TASK={task!r}", "task_options.TaskOptions.rules='original'", f"DATA_DIR={str(tmp_path)!r}"]
    options = gin_files.build(TaskOptions, ["gin/tasks/downstream.gin"], bindings, search_paths=[])
    with pytest.raises(UserError, match="take BERT's word pieces apart, and this tokenizer is another: set rules to"):
        make_task(options, vocabulary)
    # BERT's own as a tokenizer.json is not refused for that.
    with pytest.raises(UserError, match=r"set DATA_DIR|no training split"):
        make_task(options, load_tokenizer(write_tokenizer_json(tmp_path, "bert"), lowercase=None)).examples("train")
