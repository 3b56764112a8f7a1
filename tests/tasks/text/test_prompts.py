"""Classification by prompts: the filled template, the pieces of words, scores by hand, and what cannot be asked."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.catalog import make_task, task_from_facts
from electra_jax.tasks.text.prompts import Prompt, PromptTask, prompt_task
from electra_jax.tasks.text.tables import TextExample
from electra_jax.tasks.text.task import STANDARD_RULES
from electra_jax.tasks.tokenizer_file import tokenizer_of
from electra_jax.tasks.vocabulary import Vocabulary
from support.finetuned_model import TOKENS
from support.tiny_model import task_options
from support.tokenizers import tokenizer_json

PIECES = Vocabulary(TOKENS, lowercase=True, strip_accents=True)
PROMPTED = {
    "template": "{text} sat in {label}.",
    "label_words": {"far": "paris", "near": "cats"},
    "text_column": "text",
    "label_column": "label",
}


def task_of(folder: Path, rows: tuple[str, ...] = ("the dog ran,far", "who did,near"), **changes: Any) -> PromptTask:
    for split in ("train", "dev"):
        (folder / f"{split}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return make_task(task_options("prompt", data_dir=str(folder), **(PROMPTED | changes)), PIECES)


def tokens(row: dict[str, np.ndarray]) -> list[str]:
    return [TOKENS[token] for token in row["input_ids"]]


def marked(row: dict[str, np.ndarray]) -> list[str]:
    return [token for token, mark in zip(tokens(row), row["word_mask"], strict=True) if mark]


def test_a_template_is_filled_for_each_label(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    rows = task.rows(task.examples("dev").examples, training=False)
    assert [(int(row["example"]), int(row["choice"])) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert tokens(rows[1]) == ["[CLS]", "the", "dog", "ran", "sat", "in", "cat", "##s", ".", "[SEP]"]
    assert [marked(row) for row in rows[:2]] == [["paris"], ["cat", "##s"]]
    assert task.labels == ("far", "near")


def test_rows_to_train_on_hold_all_labels(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    first, second = task.rows(task.examples("train").examples, training=True)
    assert first["input_ids"].shape == first["word_mask"].shape == (2, 10)
    assert first["attention_mask"].sum(1).tolist() == [9, 10]
    assert first["word_mask"].sum(1).tolist() == [1.0, 2.0]
    assert (int(first["label"]), int(second["label"])) == (0, 1)
    assert task.rows([TextExample(0, "the dog", None, None)], training=True) == []


def test_the_words_of_a_byte_level_tokenizer_take_their_space_along() -> None:
    vocabulary = tokenizer_of(tokenizer_json("modernbert"), [])
    words = {"0": "bad", "1": "good"}
    options = task_options("prompt", template="{text} It was {label}.", label_words=words, text_column="text")
    task = prompt_task(options, vocabulary, rules=STANDARD_RULES)
    for row, word in zip(
        task.rows([TextExample(0, "A film.", None, None)], training=False), words.values(), strict=True
    ):
        pieces = [vocabulary.shown_tokens[token] for token in row["input_ids"][row["word_mask"] > 0]]
        assert "".join(pieces).strip() == word


def test_a_pair_fills_both_places() -> None:
    prompt = Prompt("{text_b}? {label}, {text}", ("yes", "no"))
    text, places = prompt.filled(TextExample(0, "one {label}", "two", None), "no")
    assert text == "two? no, one {label}"
    assert {name: text[start:end] for name, (start, end) in places.items()} == {
        "text": "one {label}",
        "text_b": "two",
        "label": "no",
    }
    assert prompt.pair


def test_texts_are_cut_and_the_template_is_not(tmp_path: Path) -> None:
    task = task_of(tmp_path, (f"{'the dog ran ' * 5},far", "who,near"), length=12)
    rows = task.rows(task.examples("dev").examples, training=False)
    assert tokens(rows[1]) == ["[CLS]", "the", "dog", "ran", "the", "dog", "sat", "in", "cat", "##s", ".", "[SEP]"]
    assert (int(rows[1]["num_tokens"]), int(rows[1]["num_cut"])) == (20, 10)
    with pytest.raises(UserError, match="TEMPLATE takes 7 tokens without the text, and rows hold 6"):
        task_of(tmp_path, length=6).rows([TextExample(0, "the dog", None, None)], training=False)


def test_scores_by_hand(tmp_path: Path) -> None:
    """Logits 0 and log 3 are original with probability 1/2 and 1/4: the mean of two logarithms is that of 1/sqrt 8."""
    task = task_from_facts(task_of(tmp_path).describe(), PIECES)
    examples = task.raw_examples(["the dog ran"])
    rows = task.rows(examples, training=False)
    outputs = [np.full(len(row["input_ids"]), -50.0, np.float32) for row in rows]
    outputs[0][rows[0]["word_mask"] > 0] = [math.log(3)]
    outputs[1][rows[1]["word_mask"] > 0] = [0.0, math.log(3)]
    (found,) = task.predictions(examples, rows[::-1], [{"logits": logits} for logits in outputs[::-1]])
    far, near = 1 / 4, 1 / math.sqrt(8)
    assert found.label == "near"
    assert found.probabilities == pytest.approx({"far": far / (far + near), "near": near / (far + near)})
    assert task.score([examples[0]._replace(label=1)], [found])["accuracy"] == 100.0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"template": None}, "TEMPLATE is None: write {text} and {label} once each"),
        ({"template": "It was {label}."}, "and has {text} 0 times: write {text} and {label} once each"),
        ({"template": "{text} {txt}"}, "and has {label} 0 times"),
        ({"template": "{text} {label} {label}"}, "and has {label} 2 times"),
        ({"template": "{text} {label} {text_b}"}, "TEMPLATE has a {text_b}, and TEXT_B_COLUMN is None"),
        ({"text_b_column": "label"}, "TEMPLATE has no {text_b}, and TEXT_B_COLUMN is 'label'"),
        ({"label_words": None}, "LABEL_WORDS is None: give each label of the data a word, at least two"),
        ({"label_words": {"far": "paris"}}, "at least two"),
        ({"label_words": {"far": "paris", "near": " "}}, "give each label of the data a word"),
        ({"label_words": {"far": "paris", 1: "cats"}}, "give each label of the data a word"),
        ({"label_words": {"far": "paris", "near": "Paris"}}, "'paris' and 'Paris', which the model's vocabulary reads"),
        ({"label_words": {"far": "paris", "near": "ümlaut!"}}, "of which the model's vocabulary knows a part"),
        (
            {"label_words": {"far": "paris", "else": "cats"}},
            "line 3: the label 'near'; expected one of 'far', 'else', the",
        ),
        ({"label_column": ("a", "b")}, "prompts read one column of labels"),
        ({"long_texts": "windows"}, "set it to 'cut'"),
        ({"text_column": None}, "TEXT_COLUMN is not set"),
        ({"main_metric": "mae"}, "MAIN_METRIC is 'mae': for prompt here it must be one of accuracy"),
    ],
)
def test_what_cannot_be_asked(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        task_of(tmp_path, **changes).examples("train")
    assert sentence in str(refused.value)


def test_rows_of_labels_without_a_word_are_counted(tmp_path: Path) -> None:
    found = task_of(tmp_path, ("the dog,far", "who,", "did,gone"), skip_bad_rows=True).examples("train")
    assert found.skipped == {"the label 'gone'": 1, "no 'label'": 1}
    assert len(found.examples) == 1


def test_a_fine_tuned_model_keeps_its_prompt(tmp_path: Path) -> None:
    """Its record is taken where the settings name no template, and a template that they name is taken."""
    recorded = task_of(tmp_path).describe()
    bare = {"template": None, "label_words": None, "data_dir": str(tmp_path), "text_column": "text"}
    task = make_task(task_options("prompt", label_column="label", **bare), PIECES, recorded=recorded)
    assert task.prompt == Prompt(PROMPTED["template"], ("paris", "cats"))
    assert task.examples("dev").examples[0].label == 0
    other = PROMPTED | {"template": "{label}: {text}", "data_dir": str(tmp_path)}
    assert make_task(task_options("prompt", **other), PIECES, recorded=recorded).prompt.template == "{label}: {text}"
