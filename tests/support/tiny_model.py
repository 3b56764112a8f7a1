"""A small model, its settings and random batches, for tests of the core."""

import dataclasses
from typing import Any

import gin
import numpy as np

from electra_jax.config import gin_files
from electra_jax.model.config import BERT_BLOCK, FULL, SLIDING, EncoderConfig
from electra_jax.model.electra import Electra, generator_config
from electra_jax.model.heads import WITHOUT_ANSWERS, HeadConfig
from electra_jax.pretraining.corruption import DistinctPositions, MaskingConfig
from electra_jax.pretraining.replaced_token import ReplacedTokenDetection
from electra_jax.tasks.options import TaskOptions
from electra_jax.training.optimizer import OptimizerConfig
from electra_jax.training.sharding import MeshConfig
from electra_jax.training.state import Batch

VOCAB_SIZE, CLS, SEP, MASK = 64, 2, 3, 4
MASKING = MaskingConfig(
    mask_prob=0.15,
    mask_token_prob=0.85,
    positions=DistinctPositions(),
    cls_id=CLS,
    sep_id=SEP,
    mask_id=MASK,
)
OBJECTIVE = ReplacedTokenDetection(
    gen_weight=1.0,
    disc_weight=50.0,
    temperature=1.0,
    disallow_correct=False,
    sampler="inverse_cdf",
    discriminate_at="all",
)
RULES = (("embed", "fsdp"), ("mlp", "tensor"), ("heads", "tensor"), ("vocab", "tensor"))
ONE_AXIS = MeshConfig(data=-1, fsdp=1, tensor=1, rules=RULES, deterministic=False)


# What every published size has in common.
PUBLISHED_ENCODER = {
    "vocab_size": 30522,
    "pad_vocab_size_multiple": 1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    **BERT_BLOCK,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "dropout_bits": 16,
    "dropout_prng": "threefry2x32",
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "dtype": "float32",
    "attention": "exact",
    "scan_unroll": 1,
    "remat_policy": "none",
}


def encoder_config(**fields: Any) -> EncoderConfig:
    """Return an encoder of the published settings; its sizes, and whatever else differs, are in `fields`."""
    return EncoderConfig(**(PUBLISHED_ENCODER | fields))


def small_encoder(*, dropout: float = 0.0, dtype: str = "float32") -> EncoderConfig:
    """Return an encoder of two layers of 16 with embeddings of 8."""
    return encoder_config(
        vocab_size=VOCAB_SIZE,
        hidden_size=16,
        embedding_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        dtype=dtype,
        scan_unroll=2,
    )


# ModernBERT's layers, one that sees the row and one that sees a window of 8.
MODERN_BLOCK = {
    "type_vocab_size": 0,
    "position_embedding_type": "rotary",
    "norm_placement": "pre",
    "gated_mlp": True,
    "attention_bias": False,
    "mlp_bias": False,
    "norm_bias": False,
    "classifier_bias": False,
    "layer_types": (FULL, SLIDING),
    "local_attention": 8,
}


def modern_encoder(**fields: Any) -> EncoderConfig:
    """Return `small_encoder` with ModernBERT's layers: one that sees the row, and one that sees a window of 8."""
    return dataclasses.replace(small_encoder(), **{"embedding_size": 16} | MODERN_BLOCK | fields)


def head_config(kind: str = "sequence_classification", **fields: Any) -> HeadConfig:
    """Return a head with two outputs and the published dropout; whatever differs is in `fields`."""
    common = {"num_labels": 2, "dropout_prob": 0.1, **WITHOUT_ANSWERS, "classifier_pooling": "cls"}
    return HeadConfig(kind, **(common | fields))


def small_model(*, dropout: float = 0.0, dtype: str = "float32") -> Electra:
    """A generator of half the width beside `small_encoder`."""
    encoder = small_encoder(dropout=dropout, dtype=dtype)
    generator = generator_config(encoder, width_fraction=0.5, depth_fraction=1.0, embedding_size=encoder.embedding_size)
    return Electra(generator, encoder, "es")


def optimizer_config(**changes: float) -> OptimizerConfig:
    """The published optimizer over ten steps without warm-up."""
    settings = {
        "rule": "bert_adam",
        "learning_rate": 1e-3,
        "generator_learning_rate": None,
        "num_warmup_steps": 0,
        "num_train_steps": 10,
        "lr_decay_power": 1.0,
        "weight_decay_rate": 0.01,
        "no_decay": "layer_norm|bias",
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-6,
        "muon_momentum": 0.95,
        "muon_update_rms": 0.2,
        "clip_norm": 1.0,
        "generator_clip_norm": None,
        "layerwise_lr_decay": 1.0,
        "top_layer_exponent": 1,
        "lr_decay_share": 1.0,
    }
    return OptimizerConfig(**(settings | changes))


def random_batch(rows: int, length: int, *, seed: int = 0) -> Batch:
    """Rows of different lengths: [CLS] words [SEP] words [SEP] padding."""
    draw = np.random.default_rng(seed)
    batch = {name: np.zeros((rows, length), np.int32) for name in ("input_ids", "token_type_ids", "attention_mask")}
    for row in range(rows):
        size = int(draw.integers(length // 2, length + 1))
        border = int(draw.integers(2, size - 2))
        ids = draw.integers(MASK + 1, VOCAB_SIZE, size)
        ids[0], ids[border], ids[-1] = CLS, SEP, SEP
        batch["input_ids"][row, :size] = ids
        batch["token_type_ids"][row, border + 1 : size] = 1
        batch["attention_mask"][row, :size] = 1
    return batch


def task_options(task: str, **changes: Any) -> TaskOptions:
    """The shipped options of a downstream task; `changes` are fields."""
    with gin_files.isolated():
        gin_files.parse(["gin/tasks/downstream.gin"], [f"TASK={task!r}"], search_paths=[])
        options = gin.get_configurable(TaskOptions)()
    return dataclasses.replace(options, **changes)
