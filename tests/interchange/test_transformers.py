"""What `AutoModelFor...`, `AutoTokenizer` and `pipeline()` say of every kind of export is what `electra predict` says.

One process asks all exports, see `support.transformers_process`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import electra_jax
from electra_jax.cli import main
from electra_jax.inference.api import Model
from electra_jax.interchange import hf
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.tokenizer_file import tokenizer_of
from electra_jax.tasks.vocabulary import Vocabulary
from support.finetuned_model import CASES, write_tuned
from support.hf_models import model_with
from support.text_rows import text_features
from support.tiny_model import modern_encoder
from support.tokenizers import NASTY, SHAPES, tokenizer_json
from support.transformers_process import ask_transformers, transformers_python

LOGITS = 2e-5
# A row that is full, and one that is padded.
IDS = np.random.default_rng(3).integers(5, 60, (2, 30))
MASK = np.stack([np.ones(30, int), np.arange(30) < 17])
TOKENS = {"input_ids": IDS.tolist(), "attention_mask": MASK.tolist()}


class Station(NamedTuple):
    """An export and what is asked of it.

    Attributes:
        write: writes the model directory, to the path that it is given.
        asked: the requests, but for the folder.
        part: the folder of the export that is asked.
    """

    write: Callable[[Path], Any]
    asked: list[dict[str, Any]]
    part: str = ""


def tuned(**case: Any) -> Callable[[Path], Any]:
    return lambda folder: write_tuned(folder, **case)


def asked_of(name: str, inputs: list[Any]) -> list[dict[str, Any]]:
    """Return what is asked of a case of `CASES`."""
    if name == "tagging":
        return [{"of": "entities", "inputs": inputs}]
    of = {"plain_tagging": "tags", "question_answering": "answers", "independent_answers": "answers"}.get(
        name, "scores"
    )
    return [{"of": of, "inputs": inputs}]


def numbers_of(asked: str, inputs: dict[str, Any] = TOKENS) -> list[dict[str, Any]]:
    return [{"of": "numbers", "asked": asked, "inputs": inputs}]


def modern(kind: str, head_kind: str = "", **fields: Any) -> Callable[[Path], Any]:
    encoder = modern_encoder(num_hidden_layers=3, layer_types=("full_attention", "sliding_attention"))
    labels = ("M", "m", "x") if "classification" in kind else ()
    return tuned(kind=kind, labels=labels, task=None, head_kind=head_kind, encoder=encoder, **fields)


CHOICES = {name: [values, values[::-1]] for name, values in TOKENS.items()}
SPANS = {"mask_questions": False, "answerable": "none"}
STATIONS = {name: Station(tuned(**case), asked_of(name, inputs)) for name, (case, inputs) in CASES.items()} | {
    "multiple_choice": Station(
        tuned(kind="multiple_choice", labels=(), task=None, head_kind="sequence_classification", num_labels=1),
        numbers_of("multiple-choice", CHOICES),
    ),
    "discriminator": Station(tuned(kind="pretraining", labels=(), task=None), numbers_of("replaced"), "discriminator"),
    "generator": Station(tuned(kind="pretraining", labels=(), task=None), numbers_of("fill-mask"), "generator"),
    "modern_classification": Station(
        modern("sequence_classification", "modernbert_sequence_classification", classifier_pooling="mean"),
        numbers_of("text-classification"),
    ),
    "modern_regression": Station(
        modern("regression", "modernbert_sequence_classification", num_labels=1), numbers_of("text-classification")
    ),
    "modern_choice": Station(
        modern("multiple_choice", "modernbert_sequence_classification", num_labels=1),
        numbers_of("multiple-choice", CHOICES),
    ),
    "modern_tagging": Station(
        modern("token_classification", "modernbert_token_classification"), numbers_of("token-classification")
    ),
    "modern_discriminator": Station(modern("pretraining"), numbers_of("states"), "discriminator"),
    "modern_generator": Station(modern("pretraining"), numbers_of("fill-mask"), "generator"),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Model, list[Any]]]:
    """Return each model with what transformers says of its export."""
    transformers_python()
    folder = tmp_path_factory.mktemp("exports")
    requests, numbers = [], {}
    for name, station in STATIONS.items():
        station.write(folder / name / "model")
        assert (
            main(["export", str(folder / name / "model"), str(folder / name / "out"), "--format", "transformers"]) == 0
        )
        numbers[name] = range(len(requests), len(requests) + len(station.asked))
        requests += [{"folder": str(folder / name / "out" / station.part)} | asked for asked in station.asked]
    found = ask_transformers(requests)
    return {
        name: (electra_jax.load(folder / name / "model"), [found[number] for number in numbers[name]])
        for name in STATIONS
    }


@pytest.mark.parametrize("name", CASES)
def test_answers(name: str, told: dict[str, tuple[Model, list[Any]]]) -> None:
    model, (said,) = told[name]
    inputs = CASES[name][1]
    for text, record, answer in zip(inputs, model(inputs), said, strict=True):
        if name == "tagging":
            expected = [[one["type"], one["start"], one["end"], one["score"]] for one in record["entities"]]
            assert [one[:3] for one in answer] == [one[:3] for one in expected]
            assert [one[3] for one in answer] == pytest.approx([one[3] for one in expected], abs=1e-5)
        elif name == "plain_tagging":
            starts = [sum(len(word) + 1 for word in record["words"][:place]) for place in range(len(record["words"]))]
            assert text == " ".join(record["words"])
            assert [answer[str(start)] for start in starts] == record["tags"]
        elif "answer" in record:
            assert answer == [record["answer"], record["start"], record["end"]]
        else:
            expected = {"LABEL_0": record["value"]} if "value" in record else record["probabilities"]
            assert answer == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", [name for name in STATIONS if name not in CASES])
def test_numbers(name: str, told: dict[str, tuple[Model, list[Any]]]) -> None:
    model, (said,) = told[name]
    found = np.asarray(said)
    if name.endswith("choice"):
        ours = model.logits(CHOICES["input_ids"], CHOICES["attention_mask"])
    elif name.endswith("generator"):
        ours = model.generator_logits(IDS, MASK)
    elif name == "modern_discriminator":
        ours = model.hidden_states(IDS, MASK)[-1]
    else:
        ours = model.logits(IDS, MASK)
    assert ours.shape == found.shape
    real = MASK == 1 if ours.shape[:2] == MASK.shape else np.ones(len(ours), bool)
    assert np.abs(ours[real]).max() > 0.1
    np.testing.assert_allclose(ours[real], found[real], rtol=0, atol=LOGITS * max(1.0, np.abs(ours[real]).max()))


# Words around the limits of BERT's tokenizer, 100 letters in some programs and 200 in others.
LONG = ["a" * 100, "b" * 101, "c" * 200, "d" * 201, "ΑΣ " + "ΑΒΓΣ" * 30]
# Of two texts that are cut to the same length, an odd token is the first's here and in the original, and the longer
# one's in `tokenizers`.
PAIRS = [["the cat sat", "on the mat"], ["naïf", "我是"], ["a b c d " * 20, "the cat " * 9], ["a " * 40, "b"]]


def vocabularies() -> dict[str, Vocabulary]:
    """Return tokenizers of BERT's kind that this project writes, in every reading, and those of others."""
    words = ["the", "cat", "ς", "σ", "##ς", "##σ", "α", "##α", "##a", "naif", "我", "是", "##b", "##c", "##d"]
    letters = [chr(number) for number in (*range(33, 127), *range(0x3B1, 0x3CA), 0xE000, 0xF8FF)]
    tokens = list(dict.fromkeys([*SPECIAL_TOKENS, *words, *letters]))
    ours = {
        f"lowercase={lowercase} any_script={any_script}": Vocabulary(
            tokens, lowercase, lowercase, any_script=any_script
        )
        for lowercase in (True, False)
        for any_script in (True, False)
    }
    return ours | {shape: tokenizer_of(tokenizer_json(shape), []) for shape in SHAPES}


def test_ids(tmp_path: Path) -> None:
    """AutoTokenizer gives the ids and token types that the model here reads, and none beyond its table."""
    transformers_python()
    made = vocabularies()
    texts = [*(text for text in NASTY if text.strip()), *LONG]
    requests = []
    for name, vocabulary in made.items():
        hf.write(model_with(vocabulary, head=True), tmp_path / name)
        folder = {"folder": str(tmp_path / name)}
        requests += [{"of": "rows", "inputs": [*texts, *PAIRS]} | folder, {"of": "specials"} | folder]
    found = ask_transformers(requests)
    inputs = [*((text, None) for text in texts), *map(tuple, PAIRS)]
    for (name, vocabulary), rows, (pad, end, length) in zip(made.items(), found[::2], found[1::2], strict=True):
        ours = text_features(inputs, vocabulary=vocabulary, length=length)
        assert length == 32
        assert [row[0] for row in rows] == [row.input_ids for row in ours], name
        assert [row[1] for row in rows] == [row.token_type_ids for row in ours], name
        assert pad == json.loads((tmp_path / name / "config.json").read_text())["pad_token_id"] == vocabulary.pad_id
        assert end <= vocabulary.vocab_size
