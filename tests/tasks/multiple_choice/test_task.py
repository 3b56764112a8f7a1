"""Tasks of multiple choice: own files, SWAG's and RACE's as published, their rows, and their predictions."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.catalog import make_task, task_from_facts
from electra_jax.tasks.multiple_choice.examples import ChoiceExample
from electra_jax.tasks.multiple_choice.task import ChoiceTask
from electra_jax.tasks.parts import has_gold
from electra_jax.tasks.vocabulary import Vocabulary
from support.finetuned_model import TOKENS
from support.tiny_model import task_options

PIECES = Vocabulary(TOKENS, lowercase=True, strip_accents=True)
HEADER = ["context", "question", "a", "b", "c", "answer"]
ROWS = [
    ["the cat sat", "who sat ?", "cat", "dog", "john", "0"],
    ["the dog ran home", "who ran ?", "cat", "dog", "", "B"],
]
COLUMNS = {
    "text_column": "context",
    "text_b_column": "question",
    "choice_columns": ("a", "b", "c"),
    "label_column": "answer",
}
# The header and two lines of rowanz/swagaf's data/val.csv, shortened.
SWAG = [
    [
        *("", "video-id", "fold-ind", "startphrase", "sent1", "sent2", "gold-source"),
        *("ending0", "ending1", "ending2", "ending3", "label"),
    ],
    ["0", "lsmdc1", "18313", "the cat sat. it", "the cat sat.", "it", "gold", "ran", "sat", "did", "on", "3"],
    ["1", "anet1", "202", "a dog, home. john", "a dog, home.", "john", "gen", "in", "ran", "sat", "on", "1"],
]
# The form of a passage of RACE, such as train/high/1.txt.
RACE = {
    "answers": ["D", "A"],
    "options": [["in", "on", "who", "paris"], ["cats", "dogs", "john", "the mat"]],
    "questions": ["john sat in  _  .", "who ran ?"],
    "article": "john sat in paris. the cats ran.",
    "id": "high1.txt",
}


def write_table(path: Path, rows: list[list[str]]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)


def own(folder: Path, rows: list[list[str]] = ROWS, **changes: Any) -> ChoiceTask:
    for split in ("train", "dev"):
        write_table(folder / f"{split}.csv", [HEADER, *rows])
    places = {"data_dir": str(folder)}
    return make_task(task_options("multiple_choice", **(places | COLUMNS | changes)), PIECES)


def ids(*texts: str) -> list[int]:
    return [PIECES.cls_id, *(token for text in texts for token in (*PIECES.encode(text), PIECES.sep_id))]


def test_own_tables(tmp_path: Path) -> None:
    found = own(tmp_path).examples("train")
    assert found.examples == [
        ChoiceExample(0, "the cat sat", "who sat ?", ("cat", "dog", "john"), 0),
        ChoiceExample(1, "the dog ran home", "who ran ?", ("cat", "dog"), 1),
    ]
    assert all(map(has_gold, found.examples))


def test_own_lines_of_json(tmp_path: Path) -> None:
    lines = [{"q": "who sat ?", "options": ["cat", "dog", "john", "home"], "gold": "john"}]
    (tmp_path / "test.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    columns = {"text_column": "q", "choice_columns": "options", "label_column": "gold"}
    task = make_task(task_options("multiple_choice", data_dir=str(tmp_path), **columns), PIECES)
    (example,) = task.examples("test").examples
    assert example == ChoiceExample(0, "who sat ?", None, ("cat", "dog", "john", "home"), 2)
    (tmp_path / "test.jsonl").write_text(json.dumps({"q": "who", "options": ["cat", "dog"]}) + "\n")
    (example,) = task.examples("test").examples
    assert not has_gold(example)
    with pytest.raises(UserError, match="1 of the 1 examples of multiple_choice have no label"):
        task.score([example], task.predictions([example], [], []))


def test_rows_to_train_on_hold_all_choices(tmp_path: Path) -> None:
    task = own(tmp_path)
    first, second = task.rows(task.examples("train").examples, training=True)
    wanted = [ids("the cat sat", f"who sat ? {choice}") for choice in ("cat", "dog", "john")]
    assert first["input_ids"].tolist() == [*wanted]
    assert first["token_type_ids"][0].tolist() == [0] * 5 + [1] * 5
    assert (int(first["label"]), int(second["label"])) == (0, 1)
    # The choice that the second example lacks has a token, which no softmax counts.
    assert second["choice_mask"].tolist() == [1.0, 1.0, 0.0]
    assert second["attention_mask"].sum(1).tolist() == [11, 11, 1]
    assert not second["input_ids"][2].any()


def test_rows_to_predict_are_choices(tmp_path: Path) -> None:
    task = own(tmp_path)
    rows = task.rows(task.examples("dev").examples, training=False)
    assert [(int(row["example"]), int(row["choice"])) for row in rows] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert rows[4]["input_ids"].tolist() == ids("the dog ran home", "who ran ? dog")


def test_the_longer_part_is_cut_and_counted(tmp_path: Path) -> None:
    task = own(tmp_path, [["the cat " * 9, "who ?", "dog", "john ran home", "", "0"]], length=12)
    (row,) = task.rows(task.examples("train").examples, training=True)
    assert row["input_ids"].shape == (2, 12)
    # Of the longest choice: 18 tokens of text and 5 of question and choice, of which a row holds 9.
    assert (int(row["num_tokens"]), int(row["num_cut"])) == (23, 14)


def test_a_choice_keeps_its_score_in_any_order(tmp_path: Path) -> None:
    task = task_from_facts(own(tmp_path).describe(), PIECES)
    value = {"text": "the cat", "text_b": None, "choices": ("cat", "dog", "john")}
    examples = task.raw_examples([value, value | {"choices": ("john", "cat")}])
    rows = task.rows(examples, training=False)
    logits = {"cat": 0.0, "dog": np.log(2.0), "john": np.log(5.0)}
    outputs = [
        {"logits": np.array([logits[examples[int(row["example"])].choices[int(row["choice"])]]], np.float32)}
        for row in rows
    ]
    first, second = task.predictions(examples, rows[::-1], outputs[::-1])
    assert first.to_json() == {"label": 2, "choice": "john", "probabilities": pytest.approx([1 / 8, 2 / 8, 5 / 8])}
    assert second.to_json() == {"label": 0, "choice": "john", "probabilities": pytest.approx([5 / 6, 1 / 6])}
    gold = [examples[0]._replace(label=2), examples[1]._replace(label=1)]
    assert task.score(gold, [first, second]) == {"accuracy": 50.0}


def test_swag_as_published(tmp_path: Path) -> None:
    (tmp_path / "swag").mkdir()
    for name in ("train", "val"):
        write_table(tmp_path / f"swag/{name}.csv", SWAG)
    write_table(tmp_path / "swag/test.csv", [row[:-1] for row in SWAG])
    task = make_task(task_options("swag", data_dir=str(tmp_path)), PIECES)
    assert task.splits == ("train", "dev", "test")
    assert task.examples("dev").examples[1] == ChoiceExample(1, "a dog, home.", "john", ("in", "ran", "sat", "on"), 1)
    assert [example.label for example in task.examples("test").examples] == [None, None]
    row = task.rows(task.examples("train").examples, training=True)[0]
    assert row["input_ids"][3].tolist() == ids("the cat sat.", "it on")


def test_race_as_published(tmp_path: Path) -> None:
    for place, name in (("middle", "7.txt"), ("high", "12.txt"), ("high", "3.txt")):
        (tmp_path / "RACE/dev" / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / "RACE/dev" / place / name).write_text(json.dumps(RACE))
    task = make_task(task_options("race", data_dir=str(tmp_path)), PIECES)
    assert (task.length, task.splits) == (512, ("dev",))
    found = task.examples("dev").examples
    assert [example.index for example in found] == list(range(6))
    assert found[0] == ChoiceExample(0, RACE["article"], RACE["questions"][0], tuple(RACE["options"][0]), 3)
    rows = task.rows(found[:2], training=False)
    # A blank is filled, and a question without one is followed by the choice.
    assert rows[3]["input_ids"].tolist() == ids(RACE["article"], "john sat in paris .")
    assert rows[4]["input_ids"].tolist() == ids(RACE["article"], "who ran ? cats")


def test_bad_questions_of_race(tmp_path: Path) -> None:
    folder = tmp_path / "race/train"
    folder.mkdir(parents=True)
    (folder / "1.txt").write_text(json.dumps(RACE | {"answers": ["D", "E"]}))
    (folder / "2.txt").write_text(json.dumps(RACE | {"answers": ["D"]}))
    options = task_options("race", data_dir=str(tmp_path))
    with pytest.raises(UserError, match=r"1\.txt, line 1: question 2: the label 'E'; expected the number of a choice"):
        make_task(options, PIECES).examples("train")
    found = make_task(task_options("race", data_dir=str(tmp_path), skip_bad_rows=True), PIECES).examples("train")
    assert found.skipped == {"question 2: the label 'E'": 1, "no passage of RACE": 1}
    assert [example.index for example in found.examples] == [0]
    (folder / "1.txt").unlink()
    with pytest.raises(UserError, match=r"2\.txt, line 1: no passage of RACE"):
        make_task(options, PIECES).examples("train")
    (folder / "2.txt").unlink()
    with pytest.raises(UserError, match=r"holds no \.txt file"):
        make_task(options, PIECES).examples("train")


def test_bad_rows_are_refused_or_counted(tmp_path: Path) -> None:
    rows = [*ROWS, ["the mat", "who ?", "cat", "dog", "", "C"], ["too", "many", "columns", "a", "b", "c", "d"]]
    with pytest.raises(
        UserError, match=r"train\.csv, line 4: the label 'C'; expected the number of a choice \(0 to 1\)"
    ):
        own(tmp_path, rows).examples("train")
    found = own(tmp_path, rows, skip_bad_rows=True).examples("train")
    assert found.skipped == {"the label 'C'": 1, "7 columns": 1}
    assert len(found.examples) == 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"text_column": None}, "TEXT_COLUMN is not set"),
        ({"choice_columns": None}, "CHOICE_COLUMNS is not set: name the columns of"),
        ({"label_column": None}, "LABEL_COLUMN is not set"),
        ({"label_column": ("a", "b")}, "one column says which choice is right"),
        ({"choice_columns": ("a", "z")}, "has no column 'z'"),
        ({"long_texts": "windows"}, "multiple_choice reads one row for each choice; set it to 'cut'"),
        ({"source": "tfds"}, "is read from 'files'"),
        ({"data_dir": "/nowhere"}, "multiple_choice has no split at all"),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        own(tmp_path, **changes).examples("train")
    assert sentence in str(refused.value)
