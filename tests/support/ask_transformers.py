"""Ask exported directories with transformers, in a process that may be of another Python; see `transformers_process`.

Standard input is a JSON list of requests, each with the `folder` and what is `asked` of it, a name of `ASKED`; standard
output ends in a line with the list of the answers.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer, pipeline

AUTO = {
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "multiple-choice": "AutoModelForMultipleChoice",
    "fill-mask": "AutoModelForMaskedLM",
    "replaced": "AutoModelForPreTraining",
    "states": "AutoModel",
}


def model_of(folder: str, asked: str) -> Any:
    """Return the model of a directory, in float32; every tensor is found, and none is in excess."""
    auto = getattr(transformers, AUTO[asked])
    model, loading = auto.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    wrong = {name: sorted(map(str, found)) for name, found in loading.items() if found}
    assert not wrong, (folder, wrong)
    return model.eval()


def write_modernbert(folder: str, sizes: dict[str, Any]) -> None:
    """Save a masked language model whose every weight shows."""
    model = transformers.ModernBertForMaskedLM(transformers.ModernBertConfig(**sizes))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            weights.normal_(float("norm" in name), 0.2)
    model.save_pretrained(folder)


def scores(folder: str, inputs: list[Any]) -> Any:
    """Return the score of each label of each text, cut at the length that is stated; a pair is a list of two."""
    ask = pipeline("text-classification", model_of(folder, "text-classification"), tokenizer=tokenizer_of(folder))
    given = [
        value if isinstance(value, str) else dict(zip(("text", "text_pair"), value, strict=True)) for value in inputs
    ]
    said = [ask([value], top_k=None, truncation=True)[0] for value in given]
    return [{one["label"]: one["score"] for one in labels} for labels in said]


def entities(folder: str, inputs: list[str]) -> Any:
    """Return the type, start, end and score of each group of each text."""
    ask = pipeline(
        "token-classification",
        model_of(folder, "token-classification"),
        tokenizer=tokenizer_of(folder),
        aggregation_strategy="first",
    )
    return [
        [[one["entity_group"], one["start"], one["end"], float(one["score"])] for one in ask(text)] for text in inputs
    ]


def tags(folder: str, inputs: list[str]) -> Any:
    """Return the tag of the piece that begins at each character of each text."""
    ask = pipeline("token-classification", model_of(folder, "token-classification"), tokenizer=tokenizer_of(folder))
    return [{str(one["start"]): one["entity"] for one in ask(text)} for text in inputs]


def answers(folder: str, inputs: list[dict[str, str]]) -> Any:
    """Return the answer of each question with its start and end: by the pipeline, or, in version 5, from its scores."""
    model, tokenizer = model_of(folder, "question-answering"), tokenizer_of(folder)
    if hasattr(transformers, "QuestionAnsweringPipeline"):
        ask = pipeline("question-answering", model, tokenizer=tokenizer)
        said = [ask(**question, max_answer_len=30, doc_stride=16, max_question_len=8) for question in inputs]
        return [[one["answer"], one["start"], one["end"]] for one in said]
    return [best_span(model, tokenizer, **question) for question in inputs]


def best_span(model: Any, tokenizer: Any, *, question: str, context: str) -> list[Any]:
    """Return the likeliest answer of up to 30 tokens, for a context of one window."""
    rows = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets = rows.pop("offset_mapping")[0].tolist()
    with torch.no_grad():
        found = model(**rows)
    places = [place for place, which in enumerate(rows.sequence_ids(0)) if which == 1]
    spans = [(start, end) for start in places for end in places if start <= end < start + 30]
    start, end = max(spans, key=lambda span: float(found.start_logits[0, span[0]] + found.end_logits[0, span[1]]))
    characters = offsets[start][0], offsets[end][1]
    return [context[slice(*characters)], *characters]


def choices(folder: str, inputs: list[dict[str, Any]]) -> Any:
    """Return the probabilities of the choices of each text."""
    model, tokenizer = model_of(folder, "multiple-choice"), tokenizer_of(folder)
    found = []
    for given in inputs:
        texts = [given["text"]] * len(given["choices"])
        rows = tokenizer(texts, given["choices"], padding=True, return_tensors="pt")
        with torch.no_grad():
            logits = model(**{name: values[None] for name, values in rows.items()}).logits
        found.append(logits[0].softmax(-1).tolist())
    return found


def numbers(folder: str, inputs: dict[str, Any], asked: str) -> Any:
    """Return the logits, or the last states, of token ids [B, L]; for multiple choice [B, C, L]."""
    with torch.no_grad():
        found = model_of(folder, asked)(**{name: torch.tensor(values) for name, values in inputs.items()})
    return (found.last_hidden_state if asked == "states" else found.logits).tolist()


def rows(folder: str, inputs: list[Any]) -> Any:
    """Return the ids and token types of texts and pairs, cut at the length that the directory states."""
    tokenizer = tokenizer_of(folder)
    given = [[value] if isinstance(value, str) else value for value in inputs]
    found = [tokenizer(*value, truncation=True) for value in given]
    return [[row["input_ids"], row.get("token_type_ids")] for row in found]


def vectors(folder: str, inputs: list[str]) -> Any:
    """Return the vector of each text, by the modules of sentence-transformers that the directory lists, and states.

    The states are those of every layer, of the texts padded to one length, with the arrays that they were computed of.
    """
    place = Path(folder)
    modules = [entry["type"].rpartition(".")[2] for entry in json.loads((place / "modules.json").read_text())]
    pooling = json.loads((place / "1_Pooling/config.json").read_text())
    length = json.loads((place / "sentence_bert_config.json").read_text())["max_seq_length"]
    batch = tokenizer_of(folder)(inputs, padding=True, truncation=True, max_length=length, return_tensors="pt")
    with torch.no_grad():
        found = model_of(folder, "states")(**batch, output_hidden_states=True)
    states, mask = found.last_hidden_state, batch["attention_mask"][..., None]
    pooled = states[:, 0] if pooling["pooling_mode_cls_token"] else (states * mask).sum(1) / mask.sum(1)
    if "Normalize" in modules:
        pooled = torch.nn.functional.normalize(pooled)
    arrays = {name: values.tolist() for name, values in batch.items()}
    return [pooled.tolist(), [layer.tolist() for layer in found.hidden_states], arrays]


def specials(folder: str) -> Any:
    """Return the id of padding, the number of ids, and the most tokens of a row."""
    tokenizer = tokenizer_of(folder)
    return [tokenizer.pad_token_id, max(tokenizer.get_vocab().values()) + 1, tokenizer.model_max_length]


def tokenizer_of(folder: str) -> Any:
    """Return what AutoTokenizer makes of a directory."""
    return AutoTokenizer.from_pretrained(folder)


ASKED = {
    "write_modernbert": write_modernbert,
    "scores": scores,
    "entities": entities,
    "tags": tags,
    "answers": answers,
    "choices": choices,
    "numbers": numbers,
    "rows": rows,
    "specials": specials,
    "vectors": vectors,
}

if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    requests = json.load(sys.stdin)
    print(json.dumps([ASKED[request.pop("of")](**request) for request in requests]))
