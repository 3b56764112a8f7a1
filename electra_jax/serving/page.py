"""Prepare the page on which a person tries the model: the fields of its form, and the display of an answer."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException

from electra_jax.checkpoints.model_record import TASK_KINDS
from electra_jax.inference.network import Network
from electra_jax.inference.prediction import Record
from electra_jax.reports.page import render
from electra_jax.reports.passages import THRESHOLD, ShownToken, read_tokens

MOST_FIELDS = 4


@dataclass(frozen=True)
class Field:
    """A text field of the form: its name in JSON, its label on the page, and its height in lines."""

    name: str
    label: str
    lines: int
    required: bool = True


@dataclass(frozen=True)
class Bar:
    """A bar of the page: a name and its probability."""

    name: str
    share: float


@dataclass(frozen=True)
class Part:
    """A part of a text, with the model's label and a hover text; both are "" for text between the marked parts."""

    text: str
    label: str
    note: str


@dataclass(frozen=True)
class Shown:
    """Hold the parts of a record that the page shows; a field that the kind of model does not have is empty.

    Attributes:
        answer: a label, a value, a similarity or an answer, in large type.
        tokens: the tokens, shaded by the probability that each was replaced.
        bars: probabilities, the largest first; those of choices in the order of the choices.
        parts: the text, with its spans or its answer marked.
        record: the record as JSON.
    """

    answer: str
    tokens: Sequence[ShownToken]
    bars: Sequence[Bar]
    parts: Sequence[Part]
    record: str


def fields_of(model: Network) -> list[Field]:
    """Return the fields of a model's form."""
    if TASK_KINDS.get(model.description.kind) == "question_answering":
        return [Field("context", "Passage", 8), Field("question", "Question", 2)]
    if model.description.kind == "multiple_choice":
        return [
            Field("text", "Text", 6),
            Field("text_pair", "Question, if there is one", 2, required=False),
            Field("choices", "Choices, one on each line", 4),
        ]
    if (model.description.task or {}).get("pair"):
        return [Field("text", "First text", 3), Field("text_pair", "Second text", 3)]
    return [Field("text", "Text", 4)]


def read_form(body: bytes) -> dict[str, str]:
    """Return the fields of a form as browsers send it (application/x-www-form-urlencoded, UTF-8).

    Raises:
        HTTPException: if the body has another form (400).
    """
    try:
        read = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError as error:
        raise HTTPException(
            400, f"the form cannot be read ({error}): send it from the page, or POST /predict"
        ) from error
    # Browsers end each line of a text with CR and LF.
    return {name: values[-1].replace("\r\n", "\n") for name, values in read.items()}


def input_of(model: Network, given: Mapping[str, str]) -> dict[str, Any]:
    """Return the input that a form holds, in the form that `POST /predict` takes.

    Raises:
        HTTPException: if a field is missing (400).
    """
    fields = fields_of(model)
    missing = [field.label for field in fields if field.name not in given]
    if missing:
        raise HTTPException(400, f"the form has no {missing[0]}: send it from the page, or POST /predict")
    value: dict[str, Any] = {field.name: given[field.name] for field in fields if field.required or given[field.name]}
    if "choices" in value:
        value["choices"] = [line for line in value["choices"].split("\n") if line.strip()]
    return value


def shown(model: Network, given: Mapping[str, str], record: Record) -> Shown:
    """Prepare the display of the answer to a form's input."""
    answer, tokens, bars, parts = "", [], [], []
    if "replaced_probability" in record:
        names = model.pieces.shown_tokens
        tokens = read_tokens([names[token] for token in record["input_ids"]], record["replaced_probability"])
    elif "answer" in record:
        answer = record["answer"] or "no answer"
        bars = [Bar(entry["text"] or "no answer", entry["probability"]) for entry in record["nbest"]]
        if record["start"] is not None:
            parts = parts_of(given["context"], [(record["start"], record["end"], "", "the answer")])
    elif "choice" in record:
        answer = record["choice"]
        bars = list(map(Bar, input_of(model, given)["choices"], record["probabilities"]))
    elif isinstance(record.get("probabilities"), Mapping):
        answer = record["label"] if "label" in record else ", ".join(record["labels"]) or "no label"
        bars = sorted((Bar(*entry) for entry in record["probabilities"].items()), key=lambda bar: -bar.share)
    elif "value" in record:
        answer = f"{record['value']:.4g}"
    elif "similarity" in record:
        answer = f"{record['similarity']:.4g}"
    elif "tags" in record:
        parts = parts_of(given["text"], spans_of(given["text"], record))
    return Shown(answer, tokens, bars, parts, json.dumps(record, ensure_ascii=False, indent=1))


Mark = tuple[int, int, str, str]


def spans_of(text: str, record: Record) -> Iterable[Mark]:
    """Yield the start, end, label and hover text of each entity, or of each word if the tags mark no entities."""
    if "entities" in record:
        for entity in record["entities"]:
            yield entity["start"], entity["end"], entity["type"], f"{entity['score']:.0%}"
        return
    place = 0
    for word, tag, probability in zip(record["words"], record["tags"], record["probabilities"], strict=True):
        place = text.index(word, place)
        yield place, place + len(word), tag, "cut off" if probability is None else f"{probability:.0%}"
        place += len(word)


def parts_of(text: str, marks: Iterable[Mark]) -> list[Part]:
    """Split a text at marks, which are in order and do not overlap, into the marked parts and those between them."""
    parts, place = [], 0
    for start, end, label, note in marks:
        parts += [Part(text[place:start], "", ""), Part(text[start:end], label, note)]
        place = end
    return [part for part in [*parts, Part(text[place:], "", "")] if part.text]


def lay_out(model: Network, name: str, given: Mapping[str, str], answer: Shown | None, problem: str) -> str:
    """Return the HTML of the page.

    Args:
        model: the model that is served.
        name: the name of its directory.
        given: the fields of the form when it was sent; {} at first.
        answer: the answer to the form; None if there is none.
        problem: why there is no answer, or "".
    """
    kind, task = model.description.kind, (model.description.task or {}).get("task", "")
    return render(
        "serve.html",
        name=name,
        facts=[kind.replace("_", " "), task, f"step {model.step:,}"],
        fields=fields_of(model),
        given=given,
        answer=answer,
        problem=problem,
        threshold=THRESHOLD,
        fills_masks=model.description.fills_masks,
    )
