"""Describe a model, and read and write that description: `model.json` in a model directory.

A model directory holds

    checkpoints/<step>/    Orbax: item `state` with at least `params`; item `data`, the place in the data
    model.json             the description: towers, sizes, head, labels
    vocab.txt, vocab.json  the vocabulary and its casing, if there is one, or else
    tokenizer.json, special_tokens_map.json  the tokenizer and its special tokens
    config.gin             the configuration of the run, if there is one

`electra import`, `finetune` and `pretrain` write `model.json`. A run of `electra pretrain` that began in
a directory of `electra import`, and one of an earlier version, is described by its `config.gin`.

Parameters are at `embeddings`, `generator/{encoder,head}`, `discriminator/{encoder,head}`, whichever the model has; an
untied generator's tables are at `generator/embeddings`; a fine-tuning head, which takes the place of
`discriminator/head`, is at `head`.
"""

import dataclasses
import json
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
from etils import epath

from electra_jax import run_directory
from electra_jax.errors import UserError
from electra_jax.files import replace_file
from electra_jax.json_files import read_json
from electra_jax.model.config import BERT_BLOCK, EncoderConfig
from electra_jax.model.embeddings import Embeddings
from electra_jax.model.encoder import Encoder
from electra_jax.model.heads import HeadConfig, make_head
from electra_jax.model.towers import MaskedLmHead, ReplacedTokenHead
from electra_jax.model.types import PyTree, Tokens

KINDS = (
    "pretraining",
    "discriminator",
    "generator",
    "encoder",
    "sequence_classification",
    "multi_label_classification",
    "regression",
    "multiple_choice",
    "token_classification",
    "question_answering",
    "sentence_embedding",
)

# The kind of model that answers each kind of task, and a kind of task for each kind with a head of its own.
MODEL_KINDS = {
    "prompt": "discriminator",
    "classification": "sequence_classification",
    "multi_label_classification": "multi_label_classification",
    "regression": "regression",
    "multiple_choice": "multiple_choice",
    "tagging": "token_classification",
    "question_answering": "question_answering",
    "retrieval": "sentence_embedding",
    "similarity": "sentence_embedding",
}
# For a model of vectors it is "similarity", which needs no other texts.
TASK_KINDS = {model: task for task, model in MODEL_KINDS.items() if task != "prompt"}

# The fact about the model that `electra import` read, which every model made from it keeps: license, language, name.
SOURCE = "source"

# The fields that descriptions of earlier versions lack, with the values that describe what those versions did.
ADDED_FIELDS: dict[str, dict[str, Any]] = {
    "EncoderConfig": BERT_BLOCK | {"pad_vocab_size_multiple": 1},
    "HeadConfig": {"classifier_pooling": "cls"},
}

# Kinds of model that have `logits` for every token.
KINDS_PER_TOKEN = ("pretraining", "discriminator", "generator", "encoder", "token_classification")


def per_token_outputs(kind: str) -> tuple[str, ...]:
    """Return the names of a kind of model's outputs that have a value, or a row of them, for each token."""
    spans = ("start_logits", "end_logits")
    return ("logits", *spans) if kind in KINDS_PER_TOKEN else spans


@dataclasses.dataclass(frozen=True)
class Description:
    """Describe a model: its parts, their sizes, and where it comes from.

    Attributes:
        kind: one of `KINDS`: "pretraining" has both towers and their heads, "discriminator" and "generator" one of
            them, "encoder" the discriminator's encoder alone, every other a fine-tuning head on it.
        discriminator, generator: sizes of the towers; None for one that the model lacks.
        generator_embeddings: whether the generator has tables of its own.
        head: the fine-tuning head.
        labels: names of the head's outputs, for classification and tagging.
        facts: where the model comes from and how it was trained, for its card; JSON values.
    """

    kind: str
    discriminator: EncoderConfig | None
    generator: EncoderConfig | None
    generator_embeddings: bool
    head: HeadConfig | None
    labels: tuple[str, ...]
    facts: dict[str, Any]

    @property
    def encoder(self) -> EncoderConfig:
        """Sizes of the tower that gives the model's logits: the discriminator, or a generator without one."""
        config = self.discriminator or self.generator
        assert config is not None
        return config

    @property
    def task(self) -> dict[str, Any] | None:
        """Return what `electra finetune` recorded of the task; None for any other model."""
        recorded = self.facts.get("task")
        # An imported checkpoint of the original has only the task's name.
        return recorded if isinstance(recorded, dict) else None

    @property
    def task_kind(self) -> str | None:
        """Return the kind of task that the model answers; None for a model that was made for no task."""
        return (self.task or {}).get("kind", TASK_KINDS.get(self.kind))

    @property
    def finds_replaced(self) -> bool:
        """Whether there is a head that detects replaced tokens, which prompts need."""
        return self.kind in ("pretraining", "discriminator") and self.facts.get("objective") != "Electric"

    @property
    def source(self) -> dict[str, Any]:
        """Return the fact about the imported model that this one was made from; an empty dict if there is none."""
        return {name: value for name, value in self.facts.items() if name == SOURCE}

    @property
    def longest_row(self) -> int:
        """Return the most tokens of a row that the model was made for, as its import states, or else can read."""
        most = self.encoder.max_position_embeddings
        return min(most, self.facts.get("longest row", most))

    @property
    def row_length(self) -> int:
        """Return the most tokens of a row of the model's task, or `longest_row` if it has none."""
        return (self.task or {}).get("length", self.longest_row)

    @property
    def gives_energies(self) -> bool:
        """Whether the discriminator's logit is a token's energy, as in Electric, rather than that of being replaced."""
        return self.kind == "discriminator" and self.facts.get("objective") == "Electric"

    @property
    def reads_left_to_right(self) -> bool:
        """Whether the generator predicts the next token from those before it, rather than the token under a mask."""
        return self.kind == "generator" and self.facts.get("objective") == "LanguageModel"

    @property
    def fills_masks(self) -> bool:
        """Whether there is a generator that predicts the token under a mask."""
        return self.generator is not None and not self.reads_left_to_right


class ModelRecord(TypedDict):
    """The JSON form of a `Description`."""

    format: int
    kind: str
    discriminator: dict[str, Any] | None
    generator: dict[str, Any] | None
    generator_embeddings: bool
    head: dict[str, Any] | None
    labels: list[str]
    facts: dict[str, Any]


def to_json(description: Description) -> dict[str, Any]:
    """Return a description as JSON values."""
    return {"format": 1, **dataclasses.asdict(description)}


def from_json(record: ModelRecord, path: epath.Path) -> Description:
    """Return the description that `to_json` wrote; `path` is for messages.

    Raises:
        UserError: if the record has another format, a tower or a head lacks a field, has an unknown one or one out of
            range, or the parts are not those of the kind of model.
    """

    def built(kind: type, fields: dict[str, Any] | None) -> Any:
        return None if fields is None else kind(**(ADDED_FIELDS[kind.__name__] | fields))

    try:
        if record["format"] != 1 or record["kind"] not in KINDS:
            raise ValueError(f"format {record['format']}, kind {record['kind']!r}")
        description = Description(
            kind=record["kind"],
            discriminator=built(EncoderConfig, record["discriminator"]),
            generator=built(EncoderConfig, record["generator"]),
            generator_embeddings=record["generator_embeddings"],
            head=built(HeadConfig, record["head"]),
            labels=tuple(record["labels"]),
            facts=record["facts"],
        )
        check_parts(description)
    except (KeyError, TypeError, ValueError, UserError) as error:
        raise UserError(f"{path} is not a record that this version writes ({error})") from error
    return description


def check_parts(description: Description) -> None:
    """Check that a model has the parts of its kind.

    Raises:
        ValueError: if a part is missing, or the head has another number of outputs than labels.
    """
    kind, head = description.kind, description.head
    parts = {"discriminator": description.discriminator, "generator": description.generator, "head": head}
    needed = ["generator" if kind == "generator" else "discriminator"]
    needed += ["head"] * (kind in TASK_KINDS)
    missing = [name for name in needed if parts[name] is None]
    if missing:
        raise ValueError(f"a model of kind {kind!r} without {' and '.join(missing)}")
    if head is not None and description.labels and len(description.labels) != head.num_labels:
        raise ValueError(f"{len(description.labels)} labels of a head with {head.num_labels} outputs")


def check_finds_replaced(description: Description, where: str) -> None:
    """Check that a model has a head that detects replaced tokens; `where` begins the message.

    Raises:
        UserError: if it has none.
    """
    if not description.finds_replaced:
        trained = " trained by Electric" if description.facts.get("objective") == "Electric" else ""
        raise UserError(
            f"{where} is a model of kind {description.kind!r}{trained}, without a head that detects replaced tokens, "
            "which prompts need: name a discriminator as it was pre-trained"
        )


def write_model_record(directory: epath.Path, description: Description) -> None:
    """Write `model.json`, atomically."""
    replace_file(directory / run_directory.MODEL, json.dumps(to_json(description), indent=1, ensure_ascii=False) + "\n")


def read_model_record(directory: epath.Path) -> Description:
    """Read `model.json`.

    Raises:
        UserError: if the file cannot be read or is not what this version writes.
    """
    path = directory / run_directory.MODEL
    return from_json(read_json(path, ModelRecord), path)


def abstract_params(description: Description) -> PyTree:
    """Return the shapes of a model's parameters as `jax.ShapeDtypeStruct` leaves; nothing is allocated."""
    return jax.eval_shape(lambda: _init(description))


def _init(description: Description) -> PyTree:
    """Initialize each part, at its place in the parameter tree."""
    from flax import linen as nn

    key = jax.random.key(0)
    ids_BL = jnp.zeros((1, 1), jnp.int32)

    def made(module: nn.Module, *args: Any, **kwargs: Any) -> PyTree:
        return nn.unbox(module.init(key, *args, **kwargs).get("params", {}))

    def tower(config: EncoderConfig) -> dict[str, PyTree]:
        embedded = jnp.zeros((1, 1, config.embedding_size))
        return {"encoder": made(Encoder(config), embedded, ids_BL, deterministic=True)}

    def tables(config: EncoderConfig) -> PyTree:
        return made(Embeddings(config), ids_BL, ids_BL, deterministic=True)

    params: dict[str, Any] = {"embeddings": tables(description.encoder)}
    if (config := description.generator) is not None:
        words = jnp.zeros((config.padded_vocab_size, config.embedding_size))
        head = made(MaskedLmHead(config), jnp.zeros((1, 1, config.hidden_size)), words)
        params["generator"] = {**tower(config), "head": head}
        if description.generator_embeddings:
            params["generator"]["embeddings"] = tables(config)
    if (config := description.discriminator) is not None:
        hidden_BLD = jnp.zeros((1, 1, config.hidden_size))
        params["discriminator"] = tower(config)
        if description.kind in ("pretraining", "discriminator"):
            params["discriminator"]["head"] = made(ReplacedTokenHead(config), hidden_BLD)
        if description.head is not None:
            tokens = Tokens(ids_BL, ids_BL, ids_BL)
            made_head = made(make_head(description.head, config), hidden_BLD, tokens, deterministic=True)
            # The head of vectors has no parameters.
            params |= {"head": made_head} if made_head else {}
    return params
