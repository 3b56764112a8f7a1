"""Model directories with a fine-tuning head and weights of chance, for tests of what reads them."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from electra_jax.checkpoints.model_dir import write_model
from electra_jax.checkpoints.model_record import Description, abstract_params
from electra_jax.model.config import EncoderConfig
from electra_jax.tasks.vocabulary import Vocabulary
from support.tiny_model import VOCAB_SIZE, head_config, small_encoder

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "cat", "##s", "sat", "on", "mat", "dog", "ran", "home", "who", "did", "john", "paris", "in", "?", "."]
TOKENS = [*SPECIAL, *WORDS, *(chr(97 + number) for number in range(26))]
TOKENS += [f"[unused{number}]" for number in range(VOCAB_SIZE - len(TOKENS))]

HEADS = dict.fromkeys(("regression", "multi_label_classification"), "sequence_classification")


# What `describe` says of a tagging and of a question-answering task.
TAGS = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
TAGGING = {
    "task": "ner",
    "kind": "tagging",
    "labels": list(TAGS),
    "length": 32,
    "scheme": "IOB2",
    "encoding": "BIO",
    "rules": "standard",
}
QA = {
    "task": "squad_v2",
    "kind": "question_answering",
    "scoring": "squad_v2",
    "windows": {
        "max_sequence_length": 16,
        "max_question_length": 6,
        "doc_stride": 4,
    },
    "decoding": {
        "n_best_size": 5,
        "max_answer_length": 4,
        "null_odds_against_best_span": False,
    },
    "null_threshold": None,
    "rules": "standard",
}
QUESTION = {"question": "Who sat?", "context": "John sat on the mat. The dog ran home. The cats sat in Paris."}


def write_tuned(
    directory: Path,
    kind: str,
    *,
    labels: tuple[str, ...],
    task: dict[str, Any] | None,
    head_kind: str = "",
    encoder: EncoderConfig | None = None,
    facts: dict[str, Any] | None = None,
    seed: int = 7,
    vocabulary: Vocabulary | None = Vocabulary(TOKENS, True, True),  # noqa: B008  (never changed)
    **head_fields: Any,
) -> Path:
    """A model directory of a kind of `description.KINDS`, whose facts hold `task`, if any, beside other `facts`."""
    encoder = encoder or small_encoder()
    head = None
    if kind not in ("discriminator", "generator", "pretraining", "encoder"):
        answers = {"mask_questions": True, "answerable": "start"} if kind == "question_answering" else {}
        outputs = len(labels) or (2 if answers else 1)
        fields = {"num_labels": outputs} | answers | head_fields
        head = head_config(head_kind or HEADS.get(kind, kind), **fields)
    description = Description(
        kind=kind,
        discriminator=None if kind == "generator" else encoder,
        generator=encoder if kind in ("generator", "pretraining") else None,
        generator_embeddings=False,
        head=head,
        labels=labels,
        facts=(facts or {}) | ({} if task is None else {"task": task}),
    )
    shapes, structure = jax.tree.flatten(abstract_params(description))
    draw = np.random.default_rng(seed)
    params = jax.tree.unflatten(structure, [draw.normal(0.0, 0.5, leaf.shape).astype(np.float32) for leaf in shapes])
    directory.mkdir(parents=True)
    write_model(directory, description, {"params": params}, step=3, vocabulary=vocabulary)
    return directory


def text_facts(name: str, labels: tuple[str, ...], *, pair: bool) -> dict[str, Any]:
    """What a classification of GLUE records."""
    return {
        "task": name,
        "kind": "classification",
        "target": list(labels),
        "pair": pair,
        "clips": False,
        "metrics": ["accuracy"],
        "rules": "standard",
        "length": 32,
    }


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
# The last one is longer than a row.
SOME_LONG = [*TEXTS, "cat the " * 40]
QUESTIONS = [
    {"question": "who sat ?", "context": "john sat on the mat . the dog ran home ."},
    {"question": "who ran ?", "context": "the dog ran home . john sat in paris ."},
]
# Fine-tuned models of every kind of task, and inputs.
CASES: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "classification": (
        {"kind": "sequence_classification", "labels": CLASSES, "task": text_facts("own", CLASSES, pair=False)},
        SOME_LONG,
    ),
    "pairs": (
        {"kind": "sequence_classification", "labels": CLASSES, "task": text_facts("two", CLASSES, pair=True)},
        [("the cat", "the dog ran"), ("paris", "who ?"), ("cat " * 9, "dog the " * 20)],
    ),
    "several_labels": (
        {"kind": "multi_label_classification", "labels": CLASSES, "task": SEVERAL | {"thresholds": [0.5, 0.5, 0.5]}},
        SOME_LONG,
    ),
    "regression": ({"kind": "regression", "labels": (), "task": VALUES}, SOME_LONG),
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
    # Masked questions and an answerability logit, which transformers has no place for.
    "independent_answers": ({"kind": "question_answering", "labels": (), "task": ANSWERS}, QUESTIONS),
}
