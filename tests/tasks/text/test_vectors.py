"""Tasks on vectors: their rows, the cosine of a pair, and scores of retrieval by hand, with texts that recur."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.catalog import make_task, task_from_facts
from electra_jax.tasks.text.tables import TextExample
from electra_jax.tasks.text.vectors import VectorTask, first_ranks, retrieval_scores
from electra_jax.tasks.vocabulary import Vocabulary
from support.finetuned_model import TOKENS
from support.tiny_model import task_options

PIECES = Vocabulary(TOKENS, lowercase=True, strip_accents=True)
PAIRS = [("the cat", "the dog ran", 4.0), ("who ran", "the cat", 1.0), ("the cat", "home", 0.0)]
COLUMNS = {"text_column": "a", "text_b_column": "b", "label_column": "score"}


def task_of(folder: Path, name: str, pairs: list[tuple[str, str, float]] = PAIRS, **changes: Any) -> VectorTask:
    for split in ("train", "dev"):
        with open(folder / f"{split}.csv", "w", newline="") as file:
            csv.writer(file).writerows([("a", "b", "score"), *pairs])
    return make_task(task_options(name, data_dir=str(folder), **(COLUMNS | changes)), PIECES)


def ids(text: str) -> list[int]:
    return [PIECES.cls_id, *PIECES.encode(text), PIECES.sep_id]


def test_rows_to_train_on_hold_both_texts(tmp_path: Path) -> None:
    task = task_of(tmp_path, "similarity")
    rows = task.rows(task.examples("train").examples, training=True)
    assert rows[0]["input_ids"].tolist() == ids("the cat") + ids("the dog ran")
    assert rows[0]["example_ids"].tolist() == [1] * 4 + [2] * 5
    assert not rows[0]["token_type_ids"].any()
    assert [float(row["label"]) for row in rows] == [1.0, 0.25, 0.0]
    rows = task_of(tmp_path, "retrieval").rows(task.examples("train").examples, training=True)
    # The first text is there twice, as a query and as what belongs to another: only the former is the same number.
    assert [(int(row["first_id"]), int(row["second_id"])) for row in rows] == [(0, 0), (1, 1), (0, 2)]
    apart = task.rows(task.examples("dev").examples, training=False)
    assert [(int(row["example"]), int(row["side"])) for row in apart] == [(n, s) for n in range(3) for s in (0, 1)]
    assert [row["input_ids"].tolist() for row in apart[:2]] == [ids("the cat"), ids("the dog ran")]


def test_a_pair_without_a_score_is_not_trained_on(tmp_path: Path) -> None:
    task = task_of(tmp_path, "similarity")
    unlabelled = TextExample(0, "the cat", "home", None)
    assert task.rows([unlabelled], training=True) == []
    assert len(task.rows([unlabelled], training=False)) == 2
    found = task.predictions([unlabelled], task.rows([unlabelled], training=False), [{"logits": np.ones(2)}] * 2)
    with pytest.raises(UserError, match="1 of the 1 pairs of similarity have no score"):
        task.score([unlabelled], found)


def test_each_text_of_a_pair_is_cut_by_itself(tmp_path: Path) -> None:
    task = task_of(tmp_path, "retrieval", [("the cat", "dog " * 20, 0.0), ("who", "ran", 0.0)], length=6)
    row = task.rows(task.examples("train").examples, training=True)[0]
    assert np.bincount(row["example_ids"]).tolist() == [0, 4, 6]
    assert (int(row["num_tokens"]), int(row["num_cut"])) == (22, 16)


def test_a_pairs_similarity_is_the_cosine_of_its_vectors(tmp_path: Path) -> None:
    task = task_from_facts(task_of(tmp_path, "similarity").describe(), PIECES)
    examples = task.raw_examples([("the cat", "home"), ("who", "ran")])
    rows = task.rows(examples, training=False)
    # Rows come in any order, and vectors are of any length.
    vectors = [[3.0, 4.0], [6.0, 8.0], [0.0, 2.0], [-1.0, 0.0]]
    outputs = [{"logits": np.array(vector, np.float32)} for vector in vectors]
    found = task.predictions(examples, rows[::-1], outputs[::-1])
    # Scores were from 0 to 4.
    assert found[0].to_json() == pytest.approx({"similarity": 1.0, "value": 4.0})
    assert found[1].to_json() == pytest.approx({"similarity": 0.0, "value": 0.0})
    examples = [examples[0]._replace(label=3.0), examples[1]._replace(label=1.0)]
    assert task.score(examples, found) == pytest.approx({"spearman": 100.0, "pearson": 100.0})
    with pytest.raises(UserError, match=r"input 1 is one text: .* electra embed"):
        task.raw_examples(["the cat"])


def test_ranks_by_hand() -> None:
    """Candidates at 0, 60, 90 and 180 degrees, so that cosines with the queries are 1, 0.5, 0 and -1."""
    half = 3**0.5 / 2
    candidates = np.array([[1, 0], [0.5, half], [0, 1], [-1, 0]], np.float32)
    queries = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    belongs = np.array([[0, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 0]], bool)
    # The last query is as near to the first candidate as to the fourth, which counts as nearer.
    assert first_ranks(queries, candidates, belongs).tolist() == [2, 3, 4]


def test_scores_of_retrieval() -> None:
    """A text that stands in two pairs is one query, or one candidate."""
    texts = [("q", "a"), ("q", "b"), ("r", "b"), ("s", "c")]
    examples = [TextExample(number, *pair, None) for number, pair in enumerate(texts)]
    place = {"q": [1, 0, 0], "r": [0, 0, 1], "s": [0, 1, 0], "a": [1, 0, 0], "b": [0.6, 0.8, 0], "c": [0, 1, 0]}
    vectors = [tuple(np.array(place[text], np.float32) for text in pair) for pair in texts]
    # q finds a first; r is as far from all, of which two others stand before b; s finds c.
    assert retrieval_scores(examples, vectors) == pytest.approx(
        {"mrr": 100 * (1 + 1 / 3 + 1) / 3, "accuracy_at_1": 200 / 3}
    )
    same = [(np.ones(2, np.float32), np.ones(2, np.float32))] * 4
    assert retrieval_scores(examples, same)["accuracy_at_1"] == 0.0


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("similarity", {"text_b_column": None}, "TEXT_B_COLUMN is not set"),
        ("retrieval", {"text_b_column": None}, "TEXT_B_COLUMN is not set"),
        ("similarity", {"label_column": None}, "LABEL_COLUMN is not set"),
        ("retrieval", {"long_texts": "windows"}, "retrieval makes one vector of a text; set it to 'cut'"),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, name: str, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        task_of(tmp_path, name, **changes)
    assert sentence in str(refused.value)


def test_a_score_that_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.csv, line 2: the label 'high'; expected a number"):
        task_of(tmp_path, "similarity", [("a", "b", "high")])
