"""Write the config.gin of an imported model: its sizes, and a recipe to train it further."""

from pathlib import Path
from typing import NamedTuple

from electra_jax.checkpoints.model_record import Description
from electra_jax.errors import UserError
from electra_jax.model.config import BERT_BLOCK, MAX_UNROLLED_LAYERS, EncoderConfig
from electra_jax.model.electra import generator_config

BASE_HIDDEN_SIZE, LARGE_HIDDEN_SIZE = 768, 1024

# The width of the generator of the published ELECTRA-Base, as a share; that of small and large is a quarter.
THIRD_WIDTH = 0.33333
# The depth of the generator in gin/models/modern_*.gin, as a share; it has the whole width.
MODERN_DEPTH = 0.25

# Steps and warm-up of a model that is trained further; more text needs more of them.
CONTINUED_STEPS, CONTINUED_WARMUP = 20_000, 1_000


class Recipe(NamedTuple):
    """Hold the published learning rate, steps and batch size for a size of model (ELECTRA, tables 6 and 7)."""

    learning_rate: float
    train_steps: int
    batch_size: int


SMALL, BASE, LARGE = Recipe(5e-4, 1_000_000, 128), Recipe(2e-4, 766_000, 256), Recipe(2e-4, 400_000, 2048)


def run_file(description: Description, dest: Path, *, resumes_at: int | None) -> tuple[str | None, str]:
    """Return the text of a Gin file with which `electra pretrain` trains an imported model further.

    Args:
        description: the description of the model.
        dest: the model directory, for the commands in the text.
        resumes_at: the step from which the optimizer resumes; None if the files had no moments.

    Returns:
        The text and an empty reason; or None, and the reason why there is no text.
    """
    config = description.discriminator
    if config is None:
        return None, (
            "a generator alone does not say the discriminator's sizes: to pre-train from it give --gin.INIT_FROM, and "
            "a model's Gin file of which a tower has its sizes"
        )
    generator = description.generator
    if generator is None:
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
            return None, f"no config.gin was written to train it further: {error}"
    return gin_text(description, dest, generator=generator, resumes_at=resumes_at), ""


def gin_text(description: Description, dest: Path, *, generator: EncoderConfig, resumes_at: int | None) -> str:
    """Return the text of a Gin file for a model whose generator has the given sizes."""
    config = description.discriminator
    assert config is not None
    objective = "include 'gin/objectives/electric.gin'\n" if description.gives_energies else ""
    return f"""# Written by `electra import`: the model's sizes, and a recipe to train it further, in another directory:
#   electra pretrain --gin.INIT_FROM='"{dest}"' --gin.MODEL_DIR='"runs/mine"' --gin.CORPUS='"..."'
# Set these: MODEL_DIR, CORPUS (or MIXTURE_OR_TASK_NAME); TOKENIZER if none stands beside this file
# Often overridden: TRAIN_STEPS, LEARNING_RATE, WARMUP_STEPS, BATCH_SIZE, SEQUENCE_LENGTH; see gin/runs/pretrain.gin
from __gin__ import dynamic_registration
from electra_jax.model import encoder
from electra_jax.config import pretraining as run_config

include 'gin/models/bert.gin'
include 'gin/runs/pretrain.gin'
{objective}
{recipe(config, resumes_at)}
VOCAB_SIZE = {config.vocab_size}
MAX_POSITIONS = {config.max_position_embeddings}
DROPOUT = {config.hidden_dropout_prob}
MASK_PROB = {0.25 if config.hidden_size >= LARGE_HIDDEN_SIZE else 0.15}
SEQUENCE_LENGTH = {min(max(128, config.local_attention), config.max_position_embeddings)}
encoder.EncoderConfig:
{sizes(config, config)}
generator/encoder.EncoderConfig:
{sizes(generator, config)}
run_config.PretrainingRun:
  # The sizes above, and not these fractions of the discriminator's, are the generator's.
  generator_width_fraction = {generator.hidden_size / config.hidden_size}
  generator_encoder = @generator/encoder.EncoderConfig()
  embedding_sharing = {"nes" if description.generator_embeddings else "es"!r}
"""


def recipe(config: EncoderConfig, resumes_at: int | None) -> str:
    """Return the bindings of a run's steps and learning rate.

    A run that resumes with its optimizer has the published recipe of its size. A model that is trained further with a
    new optimizer has half of the published rate, its own warm-up and fewer steps.

    Args:
        config: the sizes of the model.
        resumes_at: the step from which the optimizer resumes; None for a new optimizer.
    """
    size = config.hidden_size
    published = SMALL if size < BASE_HIDDEN_SIZE else BASE if size < LARGE_HIDDEN_SIZE else LARGE
    if resumes_at is None:
        return (
            "# With a new optimizer: half of the published rate for this size, and a short run.\n"
            f"LEARNING_RATE = {published.learning_rate / 2}\n"
            f"WARMUP_STEPS = {CONTINUED_WARMUP}\n"
            f"TRAIN_STEPS = {CONTINUED_STEPS}\n"
            f"EVALUATE_EVERY = {CONTINUED_WARMUP}\n"
            f"SAVE_EVERY = {CONTINUED_WARMUP}"
        )
    steps = published.train_steps if resumes_at < published.train_steps else resumes_at + CONTINUED_STEPS
    return (
        f"# The published recipe for this size, from step {resumes_at:,} on.\n"
        f"LEARNING_RATE = {published.learning_rate}\n"
        f"TRAIN_STEPS = {steps}\n"
        f"BATCH_SIZE = {published.batch_size}"
    )


def sizes(config: EncoderConfig, main: EncoderConfig) -> str:
    """Return the bindings of one tower's sizes; MAX_POSITIONS is that of the main tower."""
    own_positions = config.max_position_embeddings != main.max_position_embeddings
    fields = (
        *("hidden_size", "embedding_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
        *("type_vocab_size", "attention_probs_dropout_prob", "initializer_range", "layer_norm_eps"),
        *(("max_position_embeddings",) if own_positions else ()),
        # For "post", gin/models/bert.gin has the same values.
        *(BERT_BLOCK if config.norm_placement == "pre" else ()),
    )
    layers = config.num_hidden_layers
    return "\n".join(
        [
            *(f"  {name} = {getattr(config, name)!r}" for name in fields),
            f"  scan_unroll = {layers if layers <= MAX_UNROLLED_LAYERS else 1}",
        ]
    )
