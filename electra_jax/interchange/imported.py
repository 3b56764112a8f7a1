"""Turn what an importer read into a model directory."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import path_aware_map

from electra_jax.checkpoints import model_dir
from electra_jax.checkpoints.model_record import Description
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.config.recorded import RecordedFile
from electra_jax.errors import UserError
from electra_jax.model.config import BERT_BLOCK, EncoderConfig
from electra_jax.model.electra import generator_config
from electra_jax.model.types import PyTree
from electra_jax.run_directory import CONFIG, TOKENIZER, VOCABULARY
from electra_jax.tasks.tokenizer_file import TokenizerFile
from electra_jax.tasks.vocabulary import Vocabulary

BASE_HIDDEN_SIZE, LARGE_HIDDEN_SIZE = 768, 1024

# The generator's share of the width in the published ELECTRA-Base; small and large have a quarter.
THIRD_WIDTH = 0.33333
# The generator's share of the depth in gin/models/modern_*.gin, which has the whole width.
MODERN_DEPTH = 0.25

# As in gin/models, where small and base are unrolled and large is not.
MAX_UNROLLED_LAYERS = 12


class Moments(NamedTuple):
    """Hold Adam's moments, trees like the parameters."""

    mu: PyTree
    nu: PyTree


class Imported(NamedTuple):
    """Hold a model that was read from another implementation's files.

    Attributes:
        description: kind and sizes.
        params: float32 numpy arrays.
        moments: of the optimizer; None if the files have none.
        step: number of updates; 0 if the files do not say, or have no moments to resume from.
        vocabulary: None if the files have none.
        notes: sentences for the user about what was not used or not found.
    """

    description: Description
    params: PyTree
    moments: Moments | None
    step: int
    vocabulary: Vocabulary | None
    notes: list[str]


def check_vocabulary(vocabulary: Vocabulary | None, rows: int, source: Path) -> None:
    """Check that a vocabulary has no more entries than the embedding table has rows.

    Raises:
        UserError: if it has more.
    """
    if vocabulary is not None and len(vocabulary.tokens) > rows:
        raise UserError(
            f"the vocabulary of {source} has {len(vocabulary.tokens)} entries, but the embedding table has {rows} "
            "rows: give the model's own vocabulary"
        )


def without_unused_rows(model: Imported) -> Imported:
    """Return a model whose tables of words end where its vocabulary does, with a note.

    Other libraries pad tables to a round number of rows. No token has the rows beyond the vocabulary, and none of them
    may be predicted.
    """
    description = model.description
    if model.vocabulary is None or len(model.vocabulary.tokens) == description.encoder.vocab_size:
        return model
    size, rows = len(model.vocabulary.tokens), description.encoder.vocab_size

    def cut(tree: PyTree) -> PyTree:
        return path_aware_map(
            lambda path, leaf: leaf[:size] if path[-1] in ("word_embeddings", "output_bias") else leaf, tree
        )

    def resized(config: EncoderConfig | None) -> EncoderConfig | None:
        return None if config is None else dataclasses.replace(config, vocab_size=size)

    return model._replace(
        description=dataclasses.replace(
            description, discriminator=resized(description.discriminator), generator=resized(description.generator)
        ),
        params=cut(model.params),
        moments=None if model.moments is None else Moments(cut(model.moments.mu), cut(model.moments.nu)),
        notes=[
            *model.notes,
            f"the embedding table has {rows} rows and the vocabulary {size} entries: the last {rows - size} rows, "
            "which no token has, were left out",
        ],
    )


def write(model: Imported, dest: Path) -> list[str]:
    """Write a model directory; nothing is left at `dest` if that fails.

    Returns:
        Notes for the user, in addition to the model's.

    Raises:
        UserError: if `dest` exists or cannot be written.
    """
    notes = []
    state: PyTree = {"step": jnp.zeros((), jnp.int32) + model.step, "params": jax.tree.map(jnp.asarray, model.params)}
    text, reason = run_file(model, dest)
    with model_dir.new_directory(dest) as part:
        notes += [reason] if reason else []
        if text is not None:
            (part / CONFIG).write_text(text, encoding="utf-8")
            if model.description.kind == "pretraining":
                state = train_state(model, part / CONFIG)
        model_dir.write_model(part, model.description, state, step=model.step, vocabulary=model.vocabulary)
    return notes


def run_file(model: Imported, dest: Path) -> tuple[str | None, str]:
    """Return the text of a Gin file with which `electra pretrain` resumes from the model.

    Returns:
        The text and an empty reason; or None and the reason, which is empty for a fine-tuned model.
    """
    description = model.description
    config = description.discriminator
    if config is None:
        return None, (
            "a generator alone does not say the discriminator's sizes: to pre-train from it give --gin.INIT_FROM, and "
            "a model's Gin file of which a tower has its sizes"
        )
    if description.kind not in ("pretraining", "discriminator", "encoder"):
        return None, ""
    if description.generator is not None:
        return gin_text(description, dest, generator=description.generator, vocabulary=model.vocabulary), ""
    width = THIRD_WIDTH if config.hidden_size == BASE_HIDDEN_SIZE else 0.25
    modern = config.norm_placement == "pre"
    try:
        generator = generator_config(
            config,
            width_fraction=1.0 if modern else width,
            depth_fraction=max(MODERN_DEPTH, 1 / config.num_hidden_layers) if modern else 1.0,
            embedding_size=config.embedding_size,
        )
    except UserError as error:
        return None, f"no config.gin was written to resume from: {error}"
    return gin_text(description, dest, generator=generator, vocabulary=model.vocabulary), ""


def gin_text(description: Description, dest: Path, *, generator: EncoderConfig, vocabulary: Vocabulary | None) -> str:
    """Return the text for a model whose generator has these sizes."""
    config = description.discriminator
    assert config is not None
    here = dest.absolute()
    objective = "include 'gin/objectives/electric.gin'\n" if description.gives_energies else ""
    return f"""# Written by `electra import`. Resume pre-training from these weights with
#   electra pretrain --gin.MODEL_DIR='"{dest}"' --gin.CORPUS='"..."'
# Set these: CORPUS (or MIXTURE_OR_TASK_NAME); TOKENIZER if that file is not in this folder
# Often overridden: see gin/runs/pretrain.gin
from __gin__ import dynamic_registration
from electra_jax import encoder
from electra_jax import run_config

include 'gin/models/bert.gin'
include 'gin/runs/pretrain.gin'
{objective}
MODEL_DIR = {str(here)!r}
TOKENIZER = {str(here / (TOKENIZER if isinstance(vocabulary, TokenizerFile) else VOCABULARY))!r}
VOCAB_SIZE = {config.vocab_size}
DROPOUT = {config.hidden_dropout_prob}
MASK_PROB = {0.25 if config.hidden_size >= LARGE_HIDDEN_SIZE else 0.15}
SEQUENCE_LENGTH = {min(max(128, config.local_attention), config.max_position_embeddings)}
encoder.EncoderConfig:
{sizes(config)}
generator/encoder.EncoderConfig:
{sizes(generator)}
run_config.PretrainingRun:
  # The sizes above, and not these fractions of the discriminator's, are the generator's.
  generator_width_fraction = {generator.hidden_size / config.hidden_size}
  generator_encoder = @generator/encoder.EncoderConfig()
  embedding_sharing = {"nes" if description.generator_embeddings else "es"!r}
"""


def sizes(config: EncoderConfig) -> str:
    """Return the bindings of one tower's sizes."""
    fields = (
        *("hidden_size", "embedding_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
        *("max_position_embeddings", "type_vocab_size", "attention_probs_dropout_prob", "initializer_range"),
        "layer_norm_eps",
        # Otherwise those of gin/models/bert.gin.
        *(BERT_BLOCK if config.norm_placement == "pre" else ()),
    )
    layers = config.num_hidden_layers
    return "\n".join(
        [
            *(f"  {name} = {getattr(config, name)!r}" for name in fields),
            f"  scan_unroll = {layers if layers <= MAX_UNROLLED_LAYERS else 1}",
        ]
    )


def train_state(model: Imported, config_gin: Path) -> PyTree:
    """Return the state that `electra pretrain` restores; the moments are new if the model has none."""
    from electra_jax.config import gin_files
    from electra_jax.training.state import TrainState

    recorded = RecordedFile(str(config_gin), needs_imports=True)
    run = gin_files.build(PretrainingRun, [recorded], ['CORPUS="embedded"'], search_paths=[])
    params = jax.tree.map(jnp.asarray, model.params)
    opt_state = run.update_rule().init(params)
    if model.moments is not None:
        moments = jax.tree.map(jnp.asarray, model.moments)
        # Adam's count and the schedule's.
        opt_state = optax.tree.set(opt_state, mu=moments.mu, nu=moments.nu, count=jnp.asarray(model.step, jnp.int32))
    # As `init_state` derives the base key of a run.
    _, base_key = jax.random.split(jax.random.key(run.seed))
    return TrainState(jnp.asarray(model.step, jnp.int32), params, opt_state, jax.random.key_data(base_key))


def parameter_count(params: PyTree) -> int:
    """Return how many numbers a tree of arrays holds."""
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(params))
