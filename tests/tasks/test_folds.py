"""Folds of the training examples: each example is held out once, texts stay together, labels are shared out."""

import collections
import json
import random
from pathlib import Path

import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.catalog import make_task
from electra_jax.tasks.folds import draw_folds, strata_of
from electra_jax.tasks.tagging.sentences import TaggedSentence
from electra_jax.tasks.text.tables import TextExample
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.vocabulary import Vocabulary
from support.tiny_model import task_options

VOCABULARY = Vocabulary([*SPECIAL_TOKENS, "a", "b"], lowercase=True, strip_accents=True)
COLUMNS = {"text_column": "text", "label_column": "label"}


def table(folder: Path, labels: list[str], name: str = "train.csv") -> str:
    rows = [f"{'a ' * number}b,{label}\n" for number, label in enumerate(labels)]
    (folder / name).write_text("text,label\n" + "".join(rows))
    return str(folder / name)


@pytest.mark.parametrize("folds", [2, 3, 7])
@pytest.mark.parametrize("seed", [0, 1])
def test_sizes_and_shares_differ_by_one_at_most(folds: int, seed: int) -> None:
    draw = random.Random(seed)
    labels = draw.choices("xyz", weights=(10, 3, 1), k=101)
    found = draw_folds([str(number) for number in range(101)], labels, folds=folds, seed=seed)
    sizes = collections.Counter(found)
    assert sorted(sizes) == list(range(folds))
    assert max(sizes.values()) - min(sizes.values()) <= 1
    for label in "xyz":
        shares = [sum(fold == at and label == own for at, own in zip(found, labels, strict=True)) for fold in sizes]
        assert max(shares) - min(shares) <= 1


def test_the_draw_follows_the_seed_and_not_the_order_of_the_file() -> None:
    texts, labels = [f"text {number}" for number in range(40)], [number % 3 for number in range(40)]
    found = draw_folds(texts, labels, folds=4, seed=0)
    assert draw_folds(texts, labels, folds=4, seed=0) == found
    assert draw_folds(texts[::-1], labels[::-1], folds=4, seed=0) == found[::-1]
    others = draw_folds(texts, labels, folds=4, seed=1)
    assert others != found
    # Not the same folds in another order either.
    assert len(set(zip(found, others, strict=True))) > 4


def test_a_small_case_by_hand() -> None:
    """Two copies of c, and of d with another label: 5 + 3 examples of 6 texts in two folds."""
    texts = ["a", "b", "c", "c", "d", "d", "e", "f"]
    labels = ["x", "x", "x", "x", "x", "y", "y", "y"]
    found = draw_folds(texts, labels, folds=2, seed=0)
    # Of x there are c and d with two examples each, which are dealt first and apart, then a and b apart; e and f of y.
    assert found[2] == found[3] != found[4] == found[5]
    assert found[0] != found[1]
    assert found[6] != found[7]
    assert collections.Counter(found) == {0: 4, 1: 4}


def test_the_share_of_a_class_comes_before_the_size() -> None:
    """Three copies of a make its fold the larger one, and yet the two texts of y are apart."""
    found = draw_folds(["a", "a", "a", "b", "c", "d"], ["x", "x", "x", "x", "y", "y"], folds=2, seed=0)
    assert found[0] == found[1] == found[2] != found[3]
    assert found[4] != found[5]


def test_neighbouring_values_are_in_different_folds() -> None:
    values = [3.5, 0.1, 2.0, 9.0, 0.2, 2.1]
    examples = [TextExample(number, f"text {number}", None, value) for number, value in enumerate(values)]
    strata = strata_of("regression", examples, 3)
    # In order: 0.1 0.2 2.0 | 2.1 3.5 9.0.
    assert strata == [1, 0, 0, 1, 0, 1]
    found = draw_folds([example.text_a for example in examples], strata, folds=3, seed=5)
    assert {found[1], found[4], found[2]} == {found[5], found[0], found[3]} == {0, 1, 2}


def test_sentences_are_shared_out_by_the_types_of_their_entities() -> None:
    tags = [("B-PER", "I-PER"), ("O", "O"), ("B-LOC", "O"), ("O", "B-PER"), ("NN", "VB")]
    examples = [TaggedSentence(("a", "b"), one, 0) for one in tags]
    assert strata_of("tagging", examples, 2) == [("PER",), ("O",), ("LOC", "O"), ("O", "PER"), ("NN", "VB")]


def test_each_example_of_a_table_is_held_out_once(tmp_path: Path) -> None:
    """The classes are those of the whole file, also where a fold has none of one."""
    train_file = table(tmp_path, [*["no", "yes"] * 8, "rare"])
    held_out = []
    for fold in range(4):
        options = task_options("classification", train_file=train_file, folds=4, fold=fold, **COLUMNS)
        task = make_task(options, VOCABULARY)
        assert (task.labels, task.splits) == (("no", "rare", "yes"), ("train", "dev"))
        dev, train = (task.examples(split).examples for split in ("dev", "train"))
        assert sorted([*dev, *train]) == sorted({*dev, *train})
        assert len([*dev, *train]) == 17
        assert collections.Counter(example.label for example in dev)[0] == 2
        held_out += dev
    assert [example.index for example in sorted(held_out)] == list(range(17))
    # A share that stands in for a dev file is none of them.
    whole = make_task(task_options("classification", train_file=train_file, dev_fraction=0.0, **COLUMNS), VOCABULARY)
    assert sorted(held_out) == sorted(whole.examples("train").examples)


def test_a_context_is_in_one_fold(tmp_path: Path) -> None:
    def asked(name: str) -> dict[str, object]:
        return {"question": "a", "id": name, "answers": [{"text": "b", "answer_start": 2}]}

    paragraphs = [
        {"context": f"a b {place}", "qas": [asked(f"{place}.{number}") for number in range(1 + place % 3)]}
        for place in range(12)
    ]
    (tmp_path / "train.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    found: dict[str, set[int]] = {}
    sizes = []
    for fold in range(3):
        options = task_options("qa", train_file=str(tmp_path / "train.json"), folds=3, fold=fold)
        dev = make_task(options, VOCABULARY).examples("dev").examples
        sizes.append(len(dev))
        for example in dev:
            found.setdefault(example.context, set()).add(fold)
    assert len(found) == 12
    assert all(len(folds) == 1 for folds in found.values())
    # 24 questions, the contexts with three dealt out first.
    assert sizes == [8, 8, 8]


REFUSED = [
    ({"folds": 5, "fold": 0}, "FOLDS = 5 cannot divide 4 training examples of 4 different texts: set FOLDS to 4 or"),
    ({"folds": 2, "fold": 2}, "FOLD is 2: with FOLDS = 2 it is from 0 to 1, or None"),
    ({"folds": 2}, "FOLD is None: with FOLDS = 2 it is from 0 to 1, or None in electra finetune for all"),
    ({"fold": 1}, "FOLD = 1 is one of FOLDS, which is not set: set both, or neither"),
]


@pytest.mark.parametrize(("changes", "sentence"), REFUSED)
def test_folds_that_cannot_be_are_refused(tmp_path: Path, changes: dict[str, int], sentence: str) -> None:
    options = task_options("classification", train_file=table(tmp_path, ["no", "yes"] * 2), **COLUMNS, **changes)
    with pytest.raises(UserError, match=sentence):
        make_task(options, VOCABULARY).examples("dev")


def test_one_fold_is_refused() -> None:
    with pytest.raises(UserError, match="folds is 1: it must be at least 2"):
        task_options("classification", folds=1)


@pytest.mark.parametrize("named", [True, False])
def test_folds_beside_a_dev_file_are_refused(tmp_path: Path, named: bool) -> None:
    places = {"train_file": table(tmp_path, ["no", "yes"]), "dev_file": table(tmp_path, ["no"], "dev.csv")}
    options = task_options(
        "classification", folds=2, fold=0, **COLUMNS, **(places if named else {"data_dir": str(tmp_path)})
    )
    with pytest.raises(
        UserError, match="FOLDS = 2 takes dev splits from the training examples, and classification has"
    ):
        make_task(options, VOCABULARY)
