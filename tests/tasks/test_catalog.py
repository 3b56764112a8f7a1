"""Every name of the catalogue makes a task of its kind; a name that is none gets the nearest."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import gin
import pytest

from electra_jax.config import gin_files
from electra_jax.errors import UserError
from electra_jax.tasks.catalog import NAMES, make_task, task_from_facts
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.vocabulary import Vocabulary
from support.tiny_model import task_options

VOCABULARY = Vocabulary([*SPECIAL_TOKENS, "a", "b"], lowercase=True, strip_accents=True)
QUESTION_ANSWERING = {"squad_v1", "squad_v2", "newsqa", "naturalqs", "triviaqa", "searchqa", "qa"}
TAGGING = {"chunk", "ner", "tagging"}


def test_the_names() -> None:
    text = "cola sst2 mrpc stsb qqp mnli qnli rte wnli ax classification regression pair_classification package_of"
    assert set(NAMES) == {*text.split(), *QUESTION_ANSWERING, *TAGGING}


@pytest.mark.parametrize("name", NAMES)
def test_a_task_of_every_name_and_its_rebuilt_self(tmp_path: Path, name: str) -> None:
    (tmp_path / "train.tsv").write_text("text\tother\tlabel\na\tb\t1\nb\ta\t2\n")
    (tmp_path / "train.txt").write_text("a B-X\n\nb B-X\n")
    question = {"id": "1", "question": "a", "answers": [{"text": "b", "answer_start": 2}]}
    content = {"data": [{"paragraphs": [{"context": f"a b {word}", "qas": [question]} for word in "cd"]}]}
    (tmp_path / "train.json").write_text(json.dumps(content))
    columns = {"text_column": "text", "text_b_column": "other", "label_column": "label"}
    if name in QUESTION_ANSWERING:
        file, kind, length = "train.json", "question_answering", 512
    elif name in TAGGING:
        file, kind, length = "train.txt", "tagging", 256
    else:
        file, kind, length = "train.tsv", "regression" if name in ("stsb", "regression") else "classification", 128
    options = task_options(name, train_file=None if name == "ax" else str(tmp_path / file), **columns)
    task = make_task(options, VOCABULARY)
    assert (task.name, task.kind, task.length) == (name, kind, length)
    assert (len(task.labels) > 1) == (kind in ("classification", "tagging"))
    facts = json.loads(json.dumps(task.describe()))
    rebuilt = task_from_facts(facts, VOCABULARY)
    assert rebuilt.describe() == task.describe()
    assert (rebuilt.name, rebuilt.kind, rebuilt.labels, rebuilt.length) == (name, kind, task.labels, length)


def test_the_length_is_that_of_the_task_unless_it_is_set() -> None:
    assert make_task(task_options("cola", length=64), VOCABULARY).length == 64


@pytest.mark.parametrize(
    ("name", "near"), [("colla", "cola"), ("squad2", "squad_v2"), ("sts", "stsb"), ("zzz", "cola, sst2")]
)
def test_an_unknown_task(name: str, near: str) -> None:
    with pytest.raises(UserError, match=f"There is no task '{name}'; the nearest: .*{near}"):
        make_task(task_options(name), VOCABULARY)


def test_tasks_are_made_without_tensorflow() -> None:
    """A model that is loaded reads raw text by them."""
    program = """
import sys
from electra_jax.tasks import catalog
catalog.task_from_facts({"task": "cola", "kind": "classification", "target": ["0", "1"], "pair": False,
                         "metrics": ["matthews"], "gold_counts_predicted": False, "length": 128}, None)
print(sorted({"tensorflow", "seqio", "gin", "orbax"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_originals_ways_are_all_switched() -> None:
    files = ["gin/tasks/downstream.gin", "gin/reference.gin"]
    gin_files.parse(files, ["TASK='naturalqs'"], search_paths=[])
    original = gin.get_configurable(TaskOptions)()
    ours = task_options("naturalqs")
    changed = {
        field.name for field in dataclasses.fields(ours) if getattr(ours, field.name) != getattr(original, field.name)
    }
    switches = {name for name, value in vars(ours).items() if value is False} - {"skip_bad_rows"}
    assert switches <= changed
    assert changed - switches == {
        "span_reader",
        "alignment",
        "token_type_id",
        "no_span_text",
        "length_by_task",
        "null_threshold",
    }
    assert (ours.row_length, original.row_length) == (512, 128)
