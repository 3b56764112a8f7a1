"""Texts and sentences that are longer than a row: what is cut off is counted, and windows lose nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.catalog import make_task, task_from_facts
from electra_jax.tasks.long_texts import CutCount, cut_count, word_windows
from electra_jax.tasks.protocol import DownstreamTask
from electra_jax.tasks.tagging.task import TaggingTask
from electra_jax.tasks.text.tables import TextExample
from electra_jax.tasks.text.task import TextTask
from electra_jax.tasks.vocabulary import Vocabulary
from support.finetuned_model import QA, TAGGING, TOKENS, text_facts
from support.tiny_model import task_options

VOCABULARY = Vocabulary(TOKENS, lowercase=True, strip_accents=True)
LETTERS = "a b c d e f g h i j"


def task_of(facts: dict[str, Any], length: int, long_texts: str) -> DownstreamTask:
    return task_from_facts(facts | {"length": length, "long_texts": long_texts}, VOCABULARY)


def text_task(*, pair: bool, length: int, long_texts: str) -> TextTask:
    task = task_of(text_facts("own", ("bad", "good"), pair=pair), length, long_texts)
    assert isinstance(task, TextTask)
    return task


def tagging_task(length: int, long_texts: str) -> TaggingTask:
    task = task_of(TAGGING, length, long_texts)
    assert isinstance(task, TaggingTask)
    return task


def spelled(row: dict[str, np.ndarray]) -> str:
    return " ".join(VOCABULARY.tokens[token] for token in row["input_ids"])


def test_what_is_cut_off_is_counted() -> None:
    task = text_task(pair=False, length=8, long_texts="cut")
    # 10, 6, 3 and 8 word pieces, of which 6 fit.
    texts = [LETTERS, LETTERS[:11], "a b c", LETTERS[:15]]
    count = cut_count(task.rows(task.raw_examples(texts), training=False), 8)
    assert count == CutCount(8, texts=2, num_texts=4, tokens=6, num_tokens=27)
    assert str(count).startswith("2 of 4 texts, 22 % of tokens, cut at 8: fine-tune with a larger MAX_SEQ_LENGTH")
    assert str(CutCount(8, 5, 1200, 40, 100_000)).startswith("5 of 1,200 texts, 0.04 % of tokens, cut")
    pairs = text_task(pair=True, length=9, long_texts="cut")
    rows = pairs.rows(pairs.raw_examples([("a b c", LETTERS), ("a", "b")]), training=False)
    assert cut_count(rows, 9) == CutCount(9, texts=1, num_texts=2, tokens=7, num_tokens=15)


def test_the_words_of_a_long_sentence_that_are_cut_off_are_counted() -> None:
    task = tagging_task(8, "cut")
    # "cats" has two word pieces: 11, of which 6 fit; a word is cut in two where the row ends.
    count = cut_count(task.rows(task.raw_examples([f"cats {LETTERS[:17]}", "a b", LETTERS[:11]]), training=False), 8)
    assert count == CutCount(8, texts=1, num_texts=3, tokens=5, num_tokens=19)
    windows = tagging_task(8, "windows")
    assert cut_count(windows.rows(windows.raw_examples([LETTERS]), training=False), 8).tokens == 0


def test_what_is_cut_off_of_questions_is_counted_once_for_all_their_windows() -> None:
    task = task_from_facts(QA, VOCABULARY)
    # Of 6 word pieces at most; the context of the first has two windows or more.
    asked = [{"question": LETTERS, "context": LETTERS}, {"question": "who sat ?", "context": "cat"}]
    rows = task.rows(task.raw_examples(asked), training=False)
    assert len(rows) > 2
    count = cut_count(rows, task.length)
    assert count == CutCount(6, texts=1, num_texts=2, tokens=4, num_tokens=13, unit="questions")
    assert str(count) == ("1 of 2 questions, 31 % of tokens, cut at 6: fine-tune with a larger MAX_QUESTION_LENGTH")
    # As results.json has it, and as earlier versions wrote it, of texts.
    assert CutCount(**count.to_json()) == count
    assert CutCount(length=8, texts=1, num_texts=2, tokens=3, num_tokens=4).unit == "texts"


def test_windows_over_texts_overlap_by_half_and_keep_every_token() -> None:
    task = text_task(pair=False, length=8, long_texts="windows")
    rows = task.rows([TextExample(0, LETTERS[:17], None, 1), TextExample(1, "a b", None, 0)], training=True)
    assert [spelled(row) for row in rows] == [
        "[CLS] a b c d e f [SEP]",
        "[CLS] d e f g h i [SEP]",
        "[CLS] a b [SEP]",
    ]
    assert [(int(row["example"]), int(row["label"])) for row in rows] == [(0, 1), (0, 1), (1, 0)]
    assert cut_count(rows, 8) == CutCount(8, texts=0, num_texts=2, tokens=0, num_tokens=11)


def test_windows_over_pairs_repeat_the_shorter_text() -> None:
    task = text_task(pair=True, length=11, long_texts="windows")
    rows = task.rows(task.raw_examples([("x y", LETTERS), (LETTERS, "x y")]), training=False)
    assert [spelled(row) for row in rows] == [
        "[CLS] x y [SEP] a b c d e f [SEP]",
        "[CLS] x y [SEP] d e f g h i [SEP]",
        "[CLS] x y [SEP] g h i j [SEP]",
        "[CLS] a b c d e f [SEP] x y [SEP]",
        "[CLS] d e f g h i [SEP] x y [SEP]",
        "[CLS] g h i j [SEP] x y [SEP]",
    ]
    assert rows[0]["token_type_ids"].tolist() == [0] * 4 + [1] * 7
    # The shorter of two long ones is cut to half of the row, which is counted.
    both = task.rows(task.raw_examples([(LETTERS, LETTERS[:17])]), training=False)
    assert spelled(both[0]) == "[CLS] a b c d [SEP] a b c d [SEP]"
    assert cut_count(both, 11) == CutCount(11, texts=1, num_texts=1, tokens=5, num_tokens=19)


def test_the_answer_is_that_of_the_mean_logits() -> None:
    task = text_task(pair=False, length=8, long_texts="windows")
    examples = task.raw_examples(["a b", LETTERS[:17]])
    rows = task.rows(examples, training=False)
    logits = [[0.0, 1.0], [3.0, 0.0], [-1.0, 0.0]]
    outputs = [{"logits": np.array(values, np.float32)} for values in logits]
    first, second = task.predictions(examples, rows, outputs)
    assert (first.label, second.label) == ("good", "bad")
    assert second.probabilities["bad"] == pytest.approx(1 / (1 + np.exp(-1.0)))


def test_word_windows_end_between_words() -> None:
    assert word_windows([1, 1, 1, 1, 1], 3) == [(0, 3), (1, 3), (2, 3)]
    assert word_windows([2, 2, 2, 2], 5) == [(0, 2), (1, 2), (2, 2)]
    # A word that is longer than a window has one of its own.
    assert word_windows([1, 9, 1], 4) == [(0, 1), (1, 1), (2, 1)]
    assert word_windows([], 4) == [(0, 0)]


def test_tags_are_stitched_from_the_windows_that_show_most_around_each_word() -> None:
    tags = ("B-PER", "I-PER", "O", "O", "B-LOC", "O", "O", "O", "B-PER", "I-PER")
    (words,) = tagging_task(8, "windows").raw_examples([LETTERS])
    example = words.__class__(words.words, tags, 0)
    found = {}
    for long_texts in ("cut", "windows"):
        task = tagging_task(8, long_texts)
        rows = task.rows([example], training=True)
        # The model is right where a row is trained, and wrong everywhere else.
        outputs = [
            {"logits": np.eye(5, dtype=np.float32)[np.where(row["label_mask"] > 0, row["label_ids"], 2)]}
            for row in rows
        ]
        (found[long_texts],) = task.predictions([example], rows, outputs)
        assert sum(row["label_mask"].sum() for row in rows) == (6 if long_texts == "cut" else 10)
    assert found["windows"].tags == tags
    assert None not in found["windows"].probabilities
    assert found["cut"].tags == (*tags[:6], "O", "O", "O", "O")
    assert found["cut"].probabilities[6:] == (None,) * 4


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"long_texts": "window"}, "LONG_TEXTS is 'window': it must be one of 'cut', 'windows'"),
        ({"long_texts": "windows", "length": 7}, "MAX_SEQ_LENGTH is 7: windows over long texts need at least 8"),
        ({"long_texts": "windows", "rules": "original"}, "the rules 'original' cut long texts"),
    ],
)
@pytest.mark.parametrize("name", ["classification", "tagging"])
def test_settings_that_cannot_be(name: str, changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a O\n")
    (tmp_path / "train.csv").write_text("text,label\na,0\nb,1\n")
    with pytest.raises(UserError, match=sentence):
        make_task(task_options(name, data_dir=str(tmp_path), text_column="text", **changes), VOCABULARY)


def test_models_that_did_not_record_it_cut() -> None:
    for facts in (TAGGING, text_facts("own", ("bad", "good"), pair=False)):
        assert "long_texts" not in facts
        assert task_from_facts(facts, VOCABULARY).describe()["long_texts"] == "cut"
