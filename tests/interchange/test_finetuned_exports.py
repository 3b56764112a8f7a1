"""Every kind of fine-tuned model goes out as a directory of transformers that says what it says here, and back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import electra_jax
from electra_jax.checkpoints.model_dir import Loaded
from electra_jax.cli import main
from electra_jax.config.finetuning import CLASSIFICATION_HEADS, QA_HEADS
from electra_jax.errors import UserError
from electra_jax.inference.api import Model
from electra_jax.inference.prediction import predict_ids
from electra_jax.interchange import carried_task
from electra_jax.interchange.finetuned_task import bio_labels, folded
from electra_jax.tasks.original import choice
from electra_jax.tasks.tagging.conlleval import Span, conlleval_spans
from electra_jax.tasks.tagging.sentences import tags_of
from support.finetuned_model import (
    ANSWERS,
    BIOES,
    CASES,
    CLASSES,
    HIGH,
    LOW,
    SEVERAL,
    SPANS,
    VALUES,
    text_facts,
    write_tuned,
)
from support.hf_models import refusal
from support.records import assert_alike

WRITTEN = "electra_task is not what `electra export` writes"


def exported(folder: Path, *, carried: bool = True, **case: Any) -> tuple[Model, Path, Model]:
    """Return a fine-tuned model, its export, and that imported again, with or without what is carried of its task."""
    write_tuned(folder / "tuned", **case)
    assert main(["export", str(folder / "tuned"), str(folder / "out"), "--format", "transformers"]) == 0
    if not carried:
        edit_config(folder / "out", **{carried_task.TASK: None})
    assert main(["import", str(folder / "out"), str(folder / "again")]) == 0
    return electra_jax.load(folder / "tuned"), folder / "out", electra_jax.load(folder / "again")


@pytest.mark.parametrize("name", CASES)
def test_the_export_says_the_same_here(name: str, tmp_path: Path) -> None:
    """A stranger's model, of which only the files of transformers are known, answers as the fine-tuned one."""
    case, inputs = CASES[name]
    tuned, out, again = exported(tmp_path, carried=False, **case)
    assert again.description.task is None
    for before, after in zip(tuned(inputs), again(inputs), strict=True):
        if "value" in before:
            # Some lie outside the interval that was trained on.
            assert after["value"] == pytest.approx(before["value"], rel=1e-5)
        elif "label" in before:
            assert after["label"] == before["label"]
            assert after["probabilities"] == pytest.approx(before["probabilities"], abs=1e-6)
        elif "labels" in before:
            assert after["labels"] == before["labels"]
            assert after["probabilities"] == pytest.approx(before["probabilities"], abs=1e-6)
        elif "tags" in before:
            assert after["words"] == before["words"]
            assert after["probabilities"] == pytest.approx(before["probabilities"], abs=1e-6)
        else:
            assert [after[key] for key in ("answer", "start", "end")] == [
                before[key] for key in ("answer", "start", "end")
            ]
    config = json.loads((out / "config.json").read_text())
    assert config["label2id"].keys() == set(config["id2label"].values()) if "id2label" in config else "answer" in name


# Facts without which an import would answer otherwise.
DECIDING: dict[str, dict[str, Any]] = {
    "several_labels": {"thresholds": [0.0, 1.0, 0.0]},
    "regression": {"clips": True, "length": 7},
    "pairs": {"long_texts": "windows", "length": 7},
    "tagging": {"long_texts": "windows", "length": 6, "rules": "original"},
    "question_answering": {
        "scoring": "squad_v2",
        "null_threshold": -1e9,
        "decoding": ANSWERS["decoding"] | {"max_answer_length": 1},
    },
}


@pytest.mark.parametrize("name", CASES)
def test_a_task_comes_back_with_all_its_facts(name: str, tmp_path: Path) -> None:
    """Thresholds, windows, clipping, pairs and tags are those of the fine-tuned model again, and so is each answer."""
    case, inputs = CASES[name]
    task = case["task"] | DECIDING.get(name, {})
    tuned, _, again = exported(tmp_path, **case | {"task": task})
    assert again.description.task == choice.current_facts(task)
    assert (again.labels, again.description.kind) == (tuned.labels, tuned.description.kind)
    for before, after in zip(tuned(inputs), again(inputs), strict=True):
        assert_alike(before, after)
    if name == "regression":
        assert {record["value"] for record in again(inputs)} & {LOW, HIGH}
    if name == "question_answering":
        assert {record["answer"] for record in again(inputs)} == {""}
    if "pair" in task:
        with pytest.raises(UserError, match="reads two texts" if task["pair"] else "reads one text"):
            again(["the cat"] if task["pair"] else [("the cat", "the dog")])


CHOICES = {"task": "race", "kind": "multiple_choice", "fills_blanks": True, "rules": "standard", "length": 24}
PROMPT = text_facts("prompt", ("near", "far"), pair=False) | {
    "kind": "prompt",
    "template": "{text} in {label}.",
    "words": ["cats", "paris"],
}
OWN_KINDS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "multiple_choice": (
        {"kind": "multiple_choice", "labels": (), "task": CHOICES, "head_kind": "sequence_classification"},
        [
            {"text": "the cat sat", "text_b": "who _ ?", "choices": ["the cat", "john", "the dog ran home"]},
            {"text": "john ran", "choices": ["home", "in paris ."]},
        ],
    ),
    "prompt": ({"kind": "discriminator", "labels": (), "task": PROMPT}, ["the dog ran", "john sat on the mat"]),
}


@pytest.mark.parametrize("name", OWN_KINDS)
def test_choices_and_prompts_come_back(name: str, tmp_path: Path) -> None:
    case, inputs = OWN_KINDS[name]
    tuned, out, again = exported(tmp_path / "carried", **case)
    assert again.description.task == choice.current_facts(case["task"])
    assert (again.labels, again.description.kind) == (tuned.labels, tuned.description.kind)
    for before, after in zip(tuned(inputs), again(inputs), strict=True):
        assert_alike(before, after)
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == [f"ElectraFor{'PreTraining' if name == 'prompt' else 'MultipleChoice'}"]
    if name == "multiple_choice":
        # As a stranger's model it follows the question by the choice, as it does where there is no blank.
        tuned, _, again = exported(tmp_path / "foreign", carried=False, **case)
        assert_alike(tuned(inputs)[1], again(inputs)[1])
        assert again(inputs)[0]["probabilities"] != pytest.approx(tuned(inputs)[0]["probabilities"], abs=1e-6)


def test_several_labels_are_a_problem_type(tmp_path: Path) -> None:
    """Each probability is of one logit by itself, and a threshold decides it."""
    task = SEVERAL | {"thresholds": [0.0, 1.0, 0.0]}
    tuned, out, again = exported(tmp_path, kind="multi_label_classification", labels=CLASSES, task=task)
    config = json.loads((out / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert config["id2label"] == {"0": "M", "1": "m", "2": "x"}
    assert again.description.kind == "multi_label_classification"
    (found,) = tuned(["the cat"])
    assert found["labels"] == ["M", "x"]
    logits = tuned.logits([[2, 5, 6, 3]])
    expected = dict(zip(CLASSES, 1 / (1 + np.exp(-logits[0].astype(np.float64))), strict=True))
    assert found["probabilities"] == pytest.approx(expected, abs=1e-6)
    (of_ids,) = predict_ids(again, [{"input_ids": [2, 5, 6, 3]}], batch_size=1)
    assert of_ids["probabilities"] == pytest.approx(list(expected.values()), abs=1e-6)


def test_values_by_hand(tmp_path: Path) -> None:
    """The last layer, stored as transformers has it, gives `low + (high - low) * output`."""
    tuned, out, _ = exported(tmp_path, **CASES["regression"][0])
    config = json.loads((out / "config.json").read_text())
    assert (config["id2label"], config["label2id"]) == ({"0": "LABEL_0"}, {"LABEL_0": 0})
    assert config["problem_type"] == "regression"
    tensors = load_file(out / "model.safetensors")
    last = tuned.params["head"]["prediction"]
    np.testing.assert_allclose(tensors["classifier.out_proj.weight"], last["kernel"].T * (HIGH - LOW), rtol=1e-6)
    np.testing.assert_allclose(tensors["classifier.out_proj.bias"], last["bias"] * (HIGH - LOW) + LOW, rtol=1e-6)
    ids = [[2, 5, 6, 3]]
    assert folded(Loaded(*vars_of(tuned))).params["head"]["dense"] is tuned.params["head"]["dense"]
    value = float(tuned.logits(ids)[0, 0]) * (HIGH - LOW) + LOW
    assert tuned("the cat")[0]["value"] == pytest.approx(value, rel=1e-6)


def vars_of(model: Model) -> tuple[Any, ...]:
    return model.description, model.params, model.vocabulary, model.step


def test_tags_are_those_that_pipelines_group(tmp_path: Path) -> None:
    tuned, out, again = exported(tmp_path, **CASES["tagging"][0])
    config = json.loads((out / "config.json").read_text())
    assert set(config["id2label"].values()) == {"O", "B-PER", "I-PER", "B-per", "I-per"}
    letters = {"B": "B", "I": "I", "E": "I", "S": "B"}
    logits = tuned.logits([[2, 5, 6, 8, 9, 3]])[0, 1:-1]
    labels = [BIOES[number] for number in logits.argmax(-1)]
    expected = ["O" if label == "O" else letters[label[0]] + label[1:] for label in labels]
    assert again("the cat sat on")[0]["tags"] == expected
    assert json.loads((out / "tokenizer_config.json").read_text())["model_max_length"] == 24
    # Words beyond the task's length are outside, here and there.
    for model in (tuned, again):
        (found,) = model("cat " * 28)
        assert [place for place, share in enumerate(found["probabilities"]) if share is None] == [
            22,
            23,
            24,
            25,
            26,
            27,
        ]


def test_entities_are_the_same_in_bio() -> None:
    spans = [Span(0, 0, "PER"), Span(1, 2, "PER"), Span(3, 5, "per"), Span(7, 7, "PER")]
    tags = tags_of(spans, 9, encoding="BIOES")
    assert tags == ["S-PER", "B-PER", "E-PER", "B-per", "I-per", "E-per", "O", "S-PER", "O"]
    assert list(bio_labels(tags)) == tags_of(spans, 9, encoding="BIO")
    assert conlleval_spans(bio_labels(tags)) == conlleval_spans(tags) == spans


def test_token_types_of_the_original_are_folded(tmp_path: Path) -> None:
    """It tags rows of type 1, and transformers' tokenizer says 0."""
    case = CASES["tagging"][0]
    tuned, _, again = exported(tmp_path, **case | {"task": case["task"] | {"rules": "original"}})
    ids = [[2, 5, 6, 3]]
    np.testing.assert_array_equal(again.logits(ids), tuned.logits(ids, None, [[1, 1, 1, 1]]))
    assert not np.array_equal(again.logits(ids), tuned.logits(ids))


@pytest.mark.parametrize(
    ("kind", "head", "macro", "legal"),
    [
        ("question_answering", "joint_question_answering", "QA_HEAD", QA_HEADS),
        (
            "sequence_classification",
            "sequence_classification_reference",
            "CLASSIFICATION_HEAD",
            CLASSIFICATION_HEADS,
        ),
    ],
)
def test_refused_in_words_that_name_legal_values(
    kind: str, head: str, macro: str, legal: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tuned(tmp_path / "tuned", kind, labels=() if kind[0] == "q" else CLASSES, task=None, head_kind=head)
    error = refusal(capsys, "export", tmp_path / "tuned", tmp_path / "out", "--format", "transformers")
    assert f"no class for the head {head}: fine-tune with {macro} = 'transformers'" in error
    assert "transformers" in legal
    assert not (tmp_path / "out").exists()


def test_what_transformers_has_no_place_for_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = ANSWERS | {"scoring": "squad_v2", "null_threshold": 1.25}
    exported(tmp_path / "a", kind="question_answering", labels=(), task=task, **SPANS)
    assert "exceed 1.25" in capsys.readouterr().err
    tuned, _, again = exported(tmp_path / "b", kind="question_answering", labels=(), task=ANSWERS)
    ids, types = [[2, 5, 6, 3, 7, 8, 9, 3]], [[0, 0, 0, 0, 1, 1, 1, 1]]
    before, after = (model.logits(ids, None, types) for model in (tuned, again))
    for name in ("start_logits", "end_logits"):
        np.testing.assert_array_equal(after[name][0, 4:7], before[name][0, 4:7])
    assert "answerability logit: it was left out; QA_HEAD = 'transformers'" in capsys.readouterr().err
    assert "exceed 1.25" in (tmp_path / "a/out/README.md").read_text()
    task = SEVERAL | {"thresholds": [0.25, 0.5, 0.125]}
    exported(tmp_path / "d", kind="multi_label_classification", labels=CLASSES, task=task)
    assert "best on the dev split (M 0.25, m 0.5, x 0.125)" in capsys.readouterr().err
    task = VALUES | {"clips": True}
    exported(tmp_path / "c", kind="regression", labels=(), task=task)
    assert "predicted values are brought into 1000000.0 to 90000000.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("carried", "said"),
    [
        ("regression", "electra_task is 'regression', and must be an object: remove it"),
        ({"kind": "regression"}, "electra_task has no rules, task"),
        (VALUES | {"length": "long"}, "electra_task.length is 'long'"),
        (VALUES | {"target": [1.0, 1.0]}, WRITTEN),
        (VALUES | {"target": [0.0, float("inf")]}, WRITTEN),
        (VALUES | {"target": ["low", "high"]}, WRITTEN),
        (VALUES | {"rules": "mine"}, WRITTEN),
        (VALUES | {"long_texts": "some"}, WRITTEN),
        (VALUES | {"registered": True, "task": "os"}, WRITTEN),
    ],
)
def test_a_task_that_export_did_not_write_is_refused(
    carried: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = exported(tmp_path, **CASES["regression"][0])
    edit_config(out, **{carried_task.TASK: carried})
    error = refusal(capsys, "import", out, tmp_path / "other")
    assert f"config.json: {said}" in error
    assert not (tmp_path / "other").exists()


def test_a_model_that_was_trained_further_keeps_its_new_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = exported(tmp_path, **CASES["classification"][0])
    edit_config(out, id2label={"0": "a", "1": "b", "2": "c"})
    capsys.readouterr()
    assert main(["import", str(out), str(tmp_path / "other")]) == 0
    assert "trained further: it was left out" in capsys.readouterr().err
    model = electra_jax.load(tmp_path / "other")
    assert (model.labels, model.description.task) == (("a", "b", "c"), None)


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
