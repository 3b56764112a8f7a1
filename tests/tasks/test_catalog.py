"""Every name of the catalogue makes a task of its kind; a name that is none gets the nearest."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gin
import pytest

from electra_jax.config import gin_files
from electra_jax.errors import UserError
from electra_jax.tasks.catalog import NAMES, make_task, task_from_facts
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.original import choice
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.vocabulary import Vocabulary
from support.tiny_model import task_options

VOCABULARY = Vocabulary([*SPECIAL_TOKENS, "a", "b"], lowercase=True, strip_accents=True)
QUESTION_ANSWERING = {"squad_v1", "squad_v2", "newsqa", "naturalqs", "triviaqa", "searchqa", "qa"}
TAGGING = {"chunk", "ner", "tagging"}
VECTORS = {"similarity", "retrieval"}
CHOICES = {"multiple_choice", "swag", "race"}


def test_the_names() -> None:
    text = "cola sst2 mrpc stsb qqp mnli qnli rte wnli ax classification regression pair_classification package_of"
    assert set(NAMES) == {*text.split(), *VECTORS, *CHOICES, "prompt", *QUESTION_ANSWERING, *TAGGING}


@pytest.mark.parametrize("name", NAMES)
def test_a_task_of_every_name_and_its_rebuilt_self(tmp_path: Path, name: str) -> None:
    (tmp_path / "train.tsv").write_text("text\tother\tlabel\na\tb\t1\nb\ta\t2\n")
    (tmp_path / "train.txt").write_text("a B-X\n\nb B-X\n")
    question = {"question": "a", "answers": [{"text": "b", "answer_start": 2}]}
    paragraphs = [{"context": f"a b {word}", "qas": [question | {"id": word}]} for word in "cd"]
    content = {"data": [{"paragraphs": paragraphs}]}
    (tmp_path / "train.json").write_text(json.dumps(content))
    columns: dict[str, Any] = {"text_column": "text", "text_b_column": "other", "label_column": "label"}
    if name in QUESTION_ANSWERING:
        file, kind, length = "train.json", "question_answering", 512
    elif name in TAGGING:
        file, kind, length = "train.txt", "tagging", 256
    elif name in VECTORS:
        file, kind, length = "train.tsv", name, 128
    elif name in CHOICES:
        file, kind, length = "train.tsv", "multiple_choice", 512 if name == "race" else 128
        columns |= {"choice_columns": ("text", "other")}
    elif name == "prompt":
        file, kind, length = "train.tsv", name, 128
        columns |= {"template": "{text}, {text_b}: {label}", "label_words": {"1": "a", "2": "b"}}
    else:
        file, kind, length = "train.tsv", "regression" if name in ("stsb", "regression") else "classification", 128
    options = task_options(name, train_file=None if name == "ax" else str(tmp_path / file), **columns)
    task = make_task(options, VOCABULARY)
    assert (task.name, task.kind, task.length) == (name, kind, length)
    assert (len(task.labels) > 1) == (kind in ("classification", "tagging", "prompt"))
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
                         "metrics": ["matthews"], "rules": "standard", "length": 128}, None)
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
    assert changed == {"rules", "length_by_task", "null_threshold", "qa_metric"}
    assert (ours.row_length, original.row_length) == (512, 128)


@pytest.mark.parametrize("rules_of", [choice.text_rules, choice.tagging_rules, choice.qa_rules])
def test_the_originals_rules_differ_in_every_one(rules_of: Callable[[str], Any]) -> None:
    ours, theirs = (rules_of(name) for name in choice.NAMES)
    assert [each.name for each in (ours, theirs)] == list(choice.NAMES)
    assert not [name for name, rule in vars(ours).items() if rule == getattr(theirs, name)]
    with pytest.raises(UserError, match="rules is 'mine': it must be one of 'standard', 'original'"):
        rules_of("mine")


# What version 0.1 recorded of the tasks of fine-tuned models: the part that says which rules they follow.
RECORDED_BY_0_1 = {
    "classification": {"gold_counts_predicted": False},
    "tagging": {"span_reader": "conlleval", "alignment": "complete", "token_type_id": 0},
    "question_answering": {
        "windows": {
            "max_sequence_length": 64,
            "word_aligned_answers": False,
            "answerless_windows_are_answerable": False,
            "disjoint_windows": False,
            "drop_empty_contexts": False,
            "final_sep_is_answerable": False,
        },
        "decoding": {"n_best_size": 20, "project_words": False, "no_span_text": ""},
        "skip_unanswered": False,
    },
}


@pytest.mark.parametrize("kind", RECORDED_BY_0_1)
def test_models_of_version_0_1_keep_their_rules(kind: str) -> None:
    of_original = {
        False: True, "conlleval": "reference", "complete": "reference", "": "empty",
    }  # fmt: skip

    def as_original(facts: dict[str, Any]) -> dict[str, Any]:
        return {
            name: as_original(value) if isinstance(value, dict) else of_original.get(value, value)
            for name, value in facts.items()
        }

    standard = {"kind": kind, **RECORDED_BY_0_1[kind]}
    groups = ("windows", "decoding") if kind == "question_answering" else ()
    sizes = {"windows": {"max_sequence_length": 64}, "decoding": {"n_best_size": 20}}
    kept = {"kind": kind} | {name: sizes[name] for name in groups}
    added = {
        "classification": {"long_texts": "cut", "clips": True, "thresholds": None},
        "tagging": {"long_texts": "cut"},
        "question_answering": {"metric": "squad"},
    }[kind]
    assert choice.current_facts(standard) == added | kept | {"rules": "standard"}
    assert choice.current_facts(as_original(standard)) == added | kept | {"rules": "original"}
    assert choice.current_facts(kept | {"rules": "original"}) == added | kept | {"rules": "original"}
    # What is recorded holds.
    recorded = dict.fromkeys(added, "recorded") | kept | {"rules": "original"}
    assert choice.current_facts(recorded) == recorded


def test_a_model_of_version_0_1_with_some_of_the_originals_rules_is_refused() -> None:
    facts = {"kind": "tagging", **RECORDED_BY_0_1["tagging"], "span_reader": "reference"}
    with pytest.raises(UserError, match=r"some of the original's rules \(span_reader\)"):
        task_from_facts(facts, VOCABULARY)
