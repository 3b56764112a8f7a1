"""What was fine-tuned here says the same in transformers, and here again after `electra import`."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

import electra_jax
from support.records import assert_alike
from support.transformers_process import ask_transformers, transformers_python
from support.tuned_runs import DRAW, NOUNS, OTHERS, VERBS, electra, sentence, tune

pytestmark = pytest.mark.usefixtures("compilations")


class Kind(NamedTuple):
    """A kind of task.

    Attributes:
        task: its name.
        rows: writes the files of a split, given the folder and how many examples.
        macros: what else is set.
        inputs: what the model is asked.
        asked: how transformers is asked; None where it has no pipeline.
    """

    task: str
    rows: Callable[[int], str]
    macros: dict[str, Any]
    inputs: list[Any]
    asked: str | None


def table(header: str, row: Callable[[int], list[str]]) -> Callable[[int], str]:
    return lambda number: "\n".join([header, *(",".join(row(index)) for index in range(number))]) + "\n"


def text_of(index: int) -> str:
    return sentence(NOUNS if index % 2 else VERBS, 5)


def tagged(number: int) -> str:
    lines = (
        f"{DRAW.choice(NOUNS)} B-per\n{DRAW.choice(NOUNS)} I-per\n{DRAW.choice(OTHERS)} O\n" for _ in range(number)
    )
    return "\n".join(lines)


def questions(number: int) -> str:
    entries = []
    for index in range(number):
        words = sentence(NOUNS, 8).split()
        context, place = " ".join(words), index % 8
        answers = [{"text": words[place], "answer_start": len(" ".join(words[:place])) + (place > 0)}]
        qas = [{"id": str(index), "question": words[place], "answers": answers}]
        entries.append({"title": "", "paragraphs": [{"context": context, "qas": qas}]})
    return json.dumps({"version": "1.1", "data": entries})


TEXTS = [text_of(0), text_of(1), sentence(OTHERS, 5)]
PAIRS = [list(pair) for pair in zip(TEXTS, TEXTS[::-1], strict=True)]
QUESTIONS = [{"question": NOUNS[3], "context": sentence(NOUNS, 8)} for _ in range(3)]
TEXT, PAIR = {"TEXT_COLUMN": "text", "LABEL_COLUMN": "label"}, {"TEXT_B_COLUMN": "other"}
QA = {"MAX_QUESTION_LENGTH": 4, "DOC_STRIDE": 8, "SUFFIX": "json"}
KINDS = {
    "regression": Kind(
        "regression",
        table("text,label", lambda index: [text_of(index), f"{1_000_000 + 88_000_000 * (index % 2)}"]),
        TEXT,
        TEXTS,
        "scores",
    ),
    "classification": Kind(
        "classification",
        table("text,label", lambda index: [text_of(index), ("noun", "Noun", "verb")[index % 3]]),
        TEXT,
        TEXTS,
        "scores",
    ),
    "pair": Kind(
        "pair_classification",
        table("text,other,label", lambda index: [text_of(index), text_of(index // 2), "Mm"[index % 2]]),
        TEXT | PAIR,
        PAIRS,
        "scores",
    ),
    "several": Kind(
        "classification",
        table("text,noun,verb", lambda index: [text_of(index), *("01" if index % 2 else "10")]),
        {"TEXT_COLUMN": "text", "LABEL_COLUMN": ("noun", "verb")},
        TEXTS,
        "scores",
    ),
    # Long enough that there are entities.
    "tagging": Kind("tagging", tagged, {"TAG_ENCODING": "BIOES", "EPOCHS": 40}, TEXTS, "entities"),
    "questions": Kind("qa", questions, {"QA_HEAD": "transformers"} | QA, QUESTIONS, "answers"),
    "choices": Kind(
        "multiple_choice",
        table("text,a,b,label", lambda index: [text_of(index), text_of(0), text_of(1), str(index % 2)]),
        {"TEXT_COLUMN": "text", "CHOICE_COLUMNS": ("a", "b"), "LABEL_COLUMN": "label"},
        [{"text": TEXTS[0], "choices": TEXTS[1:]}, {"text": TEXTS[1], "choices": [*TEXTS, "k"]}],
        "choices",
    ),
    "similarity": Kind(
        "similarity",
        table("text,other,label", lambda index: [text_of(index), text_of(index // 2), str(index % 4)]),
        TEXT | PAIR,
        [tuple(pair) for pair in PAIRS],
        None,
    ),
}


# The others are covered without a fine-tuning by tests/interchange.
SHORT = ["regression", "classification", "several", "tagging", "questions", "choices"]
REST = [name for name in KINDS if name not in SHORT]


@pytest.fixture(scope="module")
def tuned(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Make a folder for one of `KINDS` with the run, its export `out`, and `again`, which was imported from that."""
    kept = tmp_path_factory.mktemp("leaving")

    @functools.cache
    def make(name: str) -> Path:
        kind, folder = KINDS[name], kept / name
        folder.mkdir()
        macros = dict(kind.macros)
        suffix = macros.pop("SUFFIX", "txt" if name == "tagging" else "csv")
        files = {f"{split.upper()}_FILE": str(folder / f"{split}.{suffix}") for split in ("train", "dev")}
        for file, number in zip(files.values(), (32, 12), strict=True):
            Path(file).write_text(kind.rows(number))
        tune(whole, folder, kind.task, **{"EPOCHS": 1, "EVALUATE_EVERY": 2} | files | macros)
        electra("export", str(folder / "run"), str(folder / "out"), "--format", "transformers")
        electra("import", str(folder / "out"), str(folder / "again"))
        return folder

    return make


@pytest.mark.parametrize("name", [*SHORT, *(pytest.param(name, marks=pytest.mark.long) for name in REST)])
def test_back_again(name: str, tuned: Callable[[str], Path]) -> None:
    """Every answer, with its probabilities and its characters."""
    before, after = (electra_jax.load(tuned(name) / part) for part in ("run", "again"))
    assert after.description.task == before.description.task
    for records in zip(before(KINDS[name].inputs), after(KINDS[name].inputs), strict=True):
        assert_alike(*records)
    if name == "tagging":
        assert before(TEXTS[1])[0]["entities"]


@pytest.mark.parametrize("names", [SHORT, pytest.param(REST, marks=pytest.mark.long)], ids=["short", "rest"])
def test_transformers_says_the_same(names: list[str], tuned: Callable[[str], Path]) -> None:
    transformers_python()
    asked = {name: KINDS[name] for name in names if KINDS[name].asked is not None}
    found = ask_transformers(
        [{"of": kind.asked, "folder": str(tuned(name) / "out"), "inputs": kind.inputs} for name, kind in asked.items()]
    )
    for (name, kind), answers in zip(asked.items(), found, strict=True):
        records = electra_jax.load(tuned(name) / "run")([given(value) for value in kind.inputs])
        for record, answer in zip(records, answers, strict=True):
            if kind.asked == "entities":
                assert answer == [
                    [one["type"], one["start"], one["end"], pytest.approx(one["score"], abs=1e-5)]
                    for one in record["entities"]
                ]
            elif kind.asked == "answers":
                assert answer == [record["answer"], record["start"], record["end"]]
            elif kind.asked == "choices":
                assert answer == pytest.approx(record["probabilities"], rel=1e-5, abs=1e-5)
            else:
                expected = {"LABEL_0": record["value"]} if "value" in record else record["probabilities"]
                assert answer == pytest.approx(expected, rel=1e-5, abs=1e-5)


def given(value: Any) -> Any:
    """Return an input as `electra_jax.load` reads it: JSON has no tuples."""
    return tuple(value) if isinstance(value, list) else value


@pytest.mark.parametrize("name", ["regression", "classification", "several", "tagging", "questions"])
def test_onnx_says_the_same(name: str, tuned: Callable[[str], Path]) -> None:
    """From a text to the answer, with nothing of this package: the tokenizer and the graph that were exported."""
    kind, dest = KINDS[name], tuned(name) / "onnx"
    electra("export", str(tuned(name) / "run"), str(dest), "--format", "onnx")
    session = onnxruntime.InferenceSession(dest / "model.onnx", providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(dest / "tokenizer.json"))
    labels = json.loads(session.get_modelmeta().custom_metadata_map.get("labels", "[]"))
    for value, record in zip(kind.inputs, electra_jax.load(tuned(name) / "run")(kind.inputs), strict=True):
        encoding = tokenizer.encode(*([value["question"], value["context"]] if name == "questions" else [value]))
        row = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        outputs = session.run(None, {key: np.array([values], np.int64) for key, values in row.items()})
        found = dict(zip([one.name for one in session.get_outputs()], [output[0] for output in outputs], strict=True))
        if name == "regression":
            assert found["logits"].tolist() == pytest.approx([record["value"]], rel=1e-5)
        elif name == "questions":
            within = [place for place, part in enumerate(encoding.sequence_ids) if part == 1]
            spans = [(start, end) for start in within for end in within if start <= end]
            start, end = max(spans, key=lambda span: found["start_logits"][span[0]] + found["end_logits"][span[1]])
            assert (encoding.offsets[start][0], encoding.offsets[end][1]) == (record["start"], record["end"])
        elif name == "tagging":
            tags = [labels[place] for place in found["logits"].argmax(-1)]
            words = encoding.word_ids
            firsts = [place for place, word in enumerate(words) if word not in (None, words[place - 1])]
            begun = [encoding.offsets[place][0] for place in firsts if tags[place].startswith("B-")]
            assert begun == [entity["start"] for entity in record["entities"]]
        else:
            odds = np.exp(found["logits"])
            expected = odds / (1 + odds) if name == "several" else odds / odds.sum()
            assert record["probabilities"] == pytest.approx(dict(zip(labels, expected.tolist(), strict=True)), abs=1e-4)
