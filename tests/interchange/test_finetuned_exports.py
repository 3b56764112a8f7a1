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
from electra_jax.inference.api import Model
from electra_jax.inference.prediction import predict_ids
from electra_jax.interchange.finetuned_task import bio_labels, folded
from electra_jax.tasks.tagging.conlleval import Span, conlleval_spans
from electra_jax.tasks.tagging.sentences import tags_of
from support.finetuned_model import QA, TAGGING, text_facts, write_tuned
from support.hf_models import refusal

CLASSES = ("M", "m", "x")
# Types that differ only in case, as `tagging.sentences.complete_labels` orders them.
BIOES = tuple(sorted(["O", *(f"{letter}-{kind}" for letter in "BIES" for kind in ("PER", "per"))]))
LOW, HIGH = 1_000_000.0, 90_000_000.0
VALUES = text_facts("own", (), pair=False) | {"kind": "regression", "target": [LOW, HIGH]}
SEVERAL = text_facts("own", CLASSES, pair=False) | {"kind": "multi_label_classification"}
# As an imported model is read; its longest answer is transformers' default.
WINDOWS = {"max_sequence_length": 32, "max_question_length": 8, "doc_stride": 16}
ANSWERS = QA | {"scoring": "squad_v1", "windows": WINDOWS, "decoding": QA["decoding"] | {"max_answer_length": 30}}
SPANS = {"mask_questions": False, "answerable": "none"}
TEXTS = ["the cat sat on the mat .", "dogs ran home", "paris"]
QUESTIONS = [
    {"question": "who sat ?", "context": "john sat on the mat . the dog ran home ."},
    {"question": "who ran ?", "context": "the dog ran home . john sat in paris ."},
]
CHOICES = {"task": "own", "kind": "multiple_choice", "fills_blanks": False, "rules": "standard", "length": 32}
CHOICE_INPUTS = [
    {"text": "the cat sat", "text_b": "who ?", "choices": ["the cat", "john", "the dog ran home"]},
    {"text": "john ran", "choices": ["home", "in paris ."]},
]
CASES: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "classification": (
        {"kind": "sequence_classification", "labels": CLASSES, "task": text_facts("own", CLASSES, pair=False)},
        TEXTS,
    ),
    "pairs": (
        {"kind": "sequence_classification", "labels": CLASSES, "task": text_facts("two", CLASSES, pair=True)},
        [("the cat", "the dog ran"), ("paris", "who ?")],
    ),
    "several_labels": (
        {"kind": "multi_label_classification", "labels": CLASSES, "task": SEVERAL | {"thresholds": [0.5, 0.5, 0.5]}},
        TEXTS,
    ),
    "regression": ({"kind": "regression", "labels": (), "task": VALUES}, TEXTS),
    "tagging": (
        {
            "kind": "token_classification",
            "labels": BIOES,
            "task": TAGGING | {"labels": list(BIOES), "encoding": "BIOES", "length": 24},
        },
        TEXTS,
    ),
    "plain_tagging": (
        {
            "kind": "token_classification",
            "labels": ("NOUN", "VERB"),
            "task": TAGGING | {"labels": ["NOUN", "VERB"], "scheme": "plain", "encoding": "plain"},
        },
        TEXTS,
    ),
    "question_answering": (
        {"kind": "question_answering", "labels": (), "task": ANSWERS, **SPANS},
        QUESTIONS,
    ),
    "multiple_choice": (
        {"kind": "multiple_choice", "labels": (), "task": CHOICES, "head_kind": "sequence_classification"},
        CHOICE_INPUTS,
    ),
}


def exported(folder: Path, **case: Any) -> tuple[Model, Path, Model]:
    """Return a fine-tuned model, its export, and that imported again."""
    write_tuned(folder / "tuned", **case)
    assert main(["export", str(folder / "tuned"), str(folder / "out"), "--format", "transformers"]) == 0
    assert main(["import", str(folder / "out"), str(folder / "again")]) == 0
    return electra_jax.load(folder / "tuned"), folder / "out", electra_jax.load(folder / "again")


@pytest.mark.parametrize("name", CASES)
def test_the_export_says_the_same_here(name: str, tmp_path: Path) -> None:
    """A stranger's model, of which only the files of transformers are known, answers as the fine-tuned one."""
    case, inputs = CASES[name]
    tuned, out, again = exported(tmp_path, **case)
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
    assert config["label2id"].keys() == set(config["id2label"].values()) if "id2label" in config else not case["labels"]


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


@pytest.mark.parametrize("name", CASES)
def test_pipelines_of_transformers_say_the_same(name: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pipeline = transformers.pipeline
    case, inputs = CASES[name]
    tuned, out, again = exported(tmp_path, **case)
    if name in ("classification", "pairs", "several_labels", "regression"):
        ask = pipeline("text-classification", str(out), top_k=None)
        given = [dict(zip(("text", "text_pair"), value, strict=True)) if name == "pairs" else value for value in inputs]
        for found, scores in zip(tuned(inputs), [ask([value])[0] for value in given], strict=True):
            said = {score["label"]: score["score"] for score in scores}
            expected = {"LABEL_0": found["value"]} if "value" in found else found["probabilities"]
            assert said == pytest.approx(expected, rel=1e-4, abs=1e-5)
    elif name == "multiple_choice":
        scores = choices_of_transformers(transformers, out, inputs)
        for found, probabilities in zip(tuned(inputs), scores, strict=True):
            assert found["probabilities"] == pytest.approx(probabilities, abs=1e-5)
    elif name == "question_answering":
        if not hasattr(transformers, "QuestionAnsweringPipeline"):
            pytest.skip("version 5 of transformers has no pipeline of question answering")
        limits = {"max_answer_len": 30, "doc_stride": 16, "max_question_len": 8}
        ask = pipeline("question-answering", str(out))
        for found, question in zip(tuned(inputs), inputs, strict=True):
            said = ask(**question, **limits)
            assert [said[key] for key in ("answer", "start", "end")] == [
                found[key] for key in ("answer", "start", "end")
            ]
    else:
        ask = pipeline("token-classification", str(out), aggregation_strategy="first")
        for text, found in zip(inputs, again(inputs), strict=True):
            said = ask(text)
            if name == "tagging":
                ours = [(one["type"], one["start"], one["end"]) for one in found["entities"]]
                assert [(one["entity_group"], one["start"], one["end"]) for one in said] == ours
            else:
                by_word = {one["start"]: one["entity"] for one in pipeline("token-classification", str(out))(text)}
                starts = [text.index(word) for word in dict.fromkeys(found["words"])]
                assert starts
                assert [by_word[start] for start in starts] == [
                    found["tags"][found["words"].index(word)] for word in dict.fromkeys(found["words"])
                ]


def choices_of_transformers(transformers: Any, directory: Path, inputs: list[dict[str, Any]]) -> list[list[float]]:
    """The probabilities of choices as transformers' own class gives them, which no pipeline does."""
    model = transformers.AutoModelForMultipleChoice.from_pretrained(directory).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    found = []
    for value in inputs:
        seconds = [f"{value.get('text_b', '')} {choice}" for choice in value["choices"]]
        encoded = tokenizer([value["text"]] * len(seconds), seconds, padding=True, return_tensors="pt")
        logits = model(**{name: tensor[None] for name, tensor in encoded.items()}).logits
        found.append(logits[0].softmax(-1).tolist())
    return found
