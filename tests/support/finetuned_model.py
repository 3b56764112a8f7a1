"""Model directories with a fine-tuning head and weights of chance, for tests of what reads them."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from electra_jax.checkpoints.model_dir import write_model
from electra_jax.checkpoints.model_record import Description, abstract_params
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
    **head_fields: Any,
) -> Path:
    """A model directory of a kind of `description.KINDS`, whose facts hold `task`, if any."""
    head = None
    if kind not in ("discriminator", "generator", "pretraining"):
        answers = {"mask_questions": True, "answerable": "start"} if kind == "question_answering" else {}
        outputs = len(labels) or (2 if answers else 1)
        fields = {"num_labels": outputs} | answers | head_fields
        head = head_config(head_kind or HEADS.get(kind, kind), **fields)
    description = Description(
        kind=kind,
        discriminator=None if kind == "generator" else small_encoder(),
        generator=small_encoder() if kind in ("generator", "pretraining") else None,
        generator_embeddings=False,
        head=head,
        labels=labels,
        facts={} if task is None else {"task": task},
    )
    shapes, structure = jax.tree.flatten(abstract_params(description))
    draw = np.random.default_rng(7)
    params = jax.tree.unflatten(structure, [draw.normal(0.0, 0.5, leaf.shape).astype(np.float32) for leaf in shapes])
    directory.mkdir(parents=True)
    write_model(directory, description, {"params": params}, step=3, vocabulary=Vocabulary(TOKENS, True, True))
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
