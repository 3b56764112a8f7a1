"""What an importer reads, and how it becomes a model directory."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from electra_jax import loading
from electra_jax.description import VOCABULARY, Description
from electra_jax.encoder import EncoderConfig
from electra_jax.errors import UserError
from electra_jax.model import Vocabulary
from electra_jax.types import PyTree

LARGE_HIDDEN_SIZE = 1024

# As in gin/models: small and base are unrolled, large is not.
MAX_UNROLLED_LAYERS = 12


class Moments(NamedTuple):
    """Adam's moments, trees like the parameters."""

    mu: PyTree
    nu: PyTree


class Imported(NamedTuple):
    """A model read from another implementation's files.

    Attributes:
        description: what it is.
        params: float32 numpy arrays.
        moments: of its optimizer, where it has them.
        step: updates it has had; 0 where it does not say, or where there are no moments to go on with.
        vocabulary: None where there is none.
        notes: sentences for the user: what was left over, renamed or not found.
    """

    description: Description
    params: PyTree
    moments: Moments | None
    step: int
    vocabulary: Vocabulary | None
    notes: list[str]


def check_vocabulary(vocabulary: Vocabulary | None, rows: int, source: Path) -> None:
    """Refuses a vocabulary that is not the embedding table's.

    Raises:
        UserError: with both numbers.
    """
    if vocabulary is not None and len(vocabulary.tokens) != rows:
        raise UserError(
            f"the vocabulary of {source} has {len(vocabulary.tokens)} entries, but the embedding table has {rows} "
            "rows: give the model's own vocabulary, or one padded to the table"
        )


def write(model: Imported, dest: Path) -> list[str]:
    """Writes a model directory; nothing is left at `dest` if it fails.

    Returns:
        Notes for the user, beside those of the model.

    Raises:
        UserError: `dest` exists, or cannot be written.
    """
    notes = []
    state: PyTree = {"step": jnp.zeros((), jnp.int32) + model.step, "params": jax.tree.map(jnp.asarray, model.params)}
    text, reason = run_file(model, dest)
    with loading.new_directory(dest) as part:
        if text is not None:
            (part / "config.gin").write_text(text, encoding="utf-8")
            state = train_state(model, part / "config.gin")
        else:
            notes.append(reason)
            if model.moments is not None:
                state["opt_state"] = model.moments._asdict()
        loading.write_model(part, model.description, state, step=model.step, vocabulary=model.vocabulary)
    return notes


def run_file(model: Imported, dest: Path) -> tuple[str | None, str]:
    """A Gin file with which `electra pretrain` goes on from the model; or None, and why there is none."""
    from electra_jax.pretraining import generator_config

    discriminator, generator = model.description.discriminator, model.description.generator
    if model.description.kind != "pretraining" or discriminator is None or generator is None:
        return None, "pre-training goes on from a generator and a discriminator together; this is one tower"
    width = generator.hidden_size / discriminator.hidden_size
    depth = generator.num_hidden_layers / discriminator.num_hidden_layers
    try:
        same = generator_config(
            discriminator, width_fraction=width, depth_fraction=depth, embedding_size=generator.embedding_size
        )
    except UserError as error:
        return None, f"no config.gin was written to go on with: {error}"
    if dataclasses.replace(same, scan_unroll=1) != dataclasses.replace(generator, scan_unroll=1):
        return None, (
            "the generator's sizes are not what fractions of the discriminator's give "
            f"({generator.num_attention_heads} heads, intermediate_size {generator.intermediate_size}): "
            "no config.gin was written to go on with"
        )
    own = "embedding_size" if generator.embedding_size == discriminator.embedding_size else "hidden_size"
    if generator.embedding_size != getattr(discriminator if own == "embedding_size" else generator, own):
        return None, (
            f"the generator's embedding_size {generator.embedding_size} is neither the discriminator's nor its own "
            "hidden size: no config.gin was written to go on with"
        )
    bindings = {
        "generator_width_fraction": width,
        "generator_depth_fraction": depth,
        "generator_embeddings": own,
        "embedding_sharing": "nes" if model.description.generator_embeddings else "es",
    }
    return gin_text(discriminator, bindings, dest), ""


def gin_text(config: EncoderConfig, bindings: dict[str, Any], dest: Path) -> str:
    """The run file of `run_file`."""
    fields = (
        *("hidden_size", "embedding_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
        *("max_position_embeddings", "type_vocab_size", "attention_probs_dropout_prob", "initializer_range"),
        "layer_norm_eps",
    )
    sizes = "\n".join(f"  {name} = {getattr(config, name)!r}" for name in fields)
    generator = "\n".join(f"  {name} = {value!r}" for name, value in bindings.items())
    here = dest.absolute()
    return f"""# Written by `electra import`: pre-training goes on from these weights with
#   electra pretrain --gin.MODEL_DIR='"{dest}"' --gin.CORPUS='"..."'
# Set these: CORPUS (or MIXTURE_OR_TASK_NAME); VOCAB_FILE if vocab.txt is not in this folder
# Often overridden: see gin/runs/pretrain.gin
from __gin__ import dynamic_registration
from electra_jax import encoder
from electra_jax import run_config

include 'gin/models/bert.gin'
include 'gin/runs/pretrain.gin'

MODEL_DIR = {str(here)!r}
VOCAB_FILE = {str(here / VOCABULARY)!r}
VOCAB_SIZE = {config.vocab_size}
DROPOUT = {config.hidden_dropout_prob}
MASK_PROB = {0.25 if config.hidden_size >= LARGE_HIDDEN_SIZE else 0.15}
SEQUENCE_LENGTH = {min(128, config.max_position_embeddings)}
encoder.EncoderConfig:
{sizes}
  scan_unroll = {config.num_hidden_layers if config.num_hidden_layers <= MAX_UNROLLED_LAYERS else 1}
run_config.PretrainingRun:
{generator}
"""


def train_state(model: Imported, config_gin: Path) -> PyTree:
    """The state that `electra pretrain` restores: the weights, and the moments or new ones, in its optimizer's form."""
    from electra_jax import gin_config
    from electra_jax.optimizer import make_optimizer
    from electra_jax.steps import TrainState

    run = gin_config.build("PretrainingRun", [str(config_gin)], ['CORPUS="embedded"'], search_paths=[])
    params = jax.tree.map(jnp.asarray, model.params)
    opt_state = make_optimizer(run.optimizer).init(params)
    if model.moments is not None:
        moments = jax.tree.map(jnp.asarray, model.moments)
        # Every count of the chain: Adam's and the schedule's.
        opt_state = optax.tree.set(opt_state, mu=moments.mu, nu=moments.nu, count=jnp.asarray(model.step, jnp.int32))
    # As `init_state` derives the base key of a run.
    _, base_key = jax.random.split(jax.random.key(run.seed))
    return TrainState(jnp.asarray(model.step, jnp.int32), params, opt_state, jax.random.key_data(base_key))


def parameter_count(params: PyTree) -> int:
    """Numbers in a tree."""
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(params))
