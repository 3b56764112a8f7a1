"""The published recipes without Gin, so that the step can be timed on a bare machine: JAX, Flax, Optax and NumPy.

A test compares every number with the Gin files that `electra pretrain` reads.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax

from electra_jax.model.electra import Electra, generator_config
from electra_jax.model.encoder import EncoderConfig
from electra_jax.pretraining import steps
from electra_jax.pretraining.corruption import MaskingConfig
from electra_jax.pretraining.replaced_token import ReplacedTokenDetection
from electra_jax.training.optimizer import OptimizerConfig, make_optimizer
from electra_jax.training.state import Batch, Sums, TrainState

# BERT's, as in its released vocabularies.
CLS_ID, SEP_ID, MASK_ID = 101, 102, 103


class Size(NamedTuple):
    """What the recipes differ in."""

    vocab_size: int
    hidden_size: int
    embedding_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    scan_unroll: int
    generator_width_fraction: float
    mask_prob: float


SIZES = {
    "tiny": Size(8192, 128, 128, 2, 4, 512, 2, 0.25, 0.15),
    "small": Size(30522, 256, 128, 12, 4, 1024, 12, 0.25, 0.15),
    "base": Size(30522, 768, 768, 12, 12, 3072, 12, 0.33333, 0.15),
    "large": Size(30522, 1024, 1024, 24, 16, 4096, 1, 0.25, 0.25),
}


class Recipe(NamedTuple):
    """All that a pre-training step is made of."""

    model: Electra
    objective: ReplacedTokenDetection
    masking: MaskingConfig
    optimizer: OptimizerConfig

    def init(self, sequence_length: int) -> Callable[[jax.Array], TrainState]:
        """Makes a new run's boxed state from a key."""
        return functools.partial(
            steps.init_state,
            model=self.model,
            optimizer=make_optimizer(self.optimizer),
            sequence_length=sequence_length,
        )

    def update(self) -> Callable[[TrainState, Batch], tuple[TrainState, Sums]]:
        """The update of a state by a batch."""
        return functools.partial(
            steps.pretrain_step,
            model=self.model,
            objective=self.objective,
            masking=self.masking,
            optimizer=make_optimizer(self.optimizer),
            accumulation_steps=1,
        )


def encoder_config(size: Size, *, dtype: str, fused: bool, prng: str) -> EncoderConfig:
    """The discriminator's; the arguments are those of `recipe`."""
    return EncoderConfig(
        vocab_size=size.vocab_size,
        hidden_size=size.hidden_size,
        embedding_size=size.embedding_size,
        num_hidden_layers=size.num_hidden_layers,
        num_attention_heads=size.num_attention_heads,
        intermediate_size=size.intermediate_size,
        max_position_embeddings=512,
        type_vocab_size=2,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.0 if fused else 0.1,
        dropout_bits=16,
        dropout_prng=prng,
        initializer_range=0.02,
        layer_norm_eps=1e-12,
        dtype=dtype,
        attention="fused" if fused else "exact",
        scan_unroll=size.scan_unroll,
        remat_policy="none",
    )


def recipe(name: str, *, dtype: str, fused: bool = False, prng: str = "threefry2x32") -> Recipe:
    """The recipe of a size; its warm-up is short, so that the loss of a few steps falls.

    Args:
        name: of the size.
        dtype: of the products.
        fused: attention by the backend's kernel, without dropout of its own.
        prng: of dropout.
    """
    size = SIZES[name]
    discriminator = encoder_config(size, dtype=dtype, fused=fused, prng=prng)
    generator = generator_config(
        discriminator,
        width_fraction=size.generator_width_fraction,
        depth_fraction=1.0,
        embedding_size=discriminator.embedding_size,
    )
    return Recipe(
        Electra(generator, discriminator, "es"),
        ReplacedTokenDetection(
            gen_weight=1.0,
            disc_weight=50.0,
            temperature=1.0,
            disallow_correct=False,
            sampler="inverse_cdf",
            discriminate_at="all",
        ),
        MaskingConfig(
            size.mask_prob,
            0.85,
            with_replacement=False,
            average_duplicates=False,
            cls_id=CLS_ID,
            sep_id=SEP_ID,
            mask_id=MASK_ID,
        ),
        OptimizerConfig(
            learning_rate=5e-4,
            num_warmup_steps=100,
            num_train_steps=1_000_000,
            lr_decay_power=1.0,
            weight_decay_rate=0.01,
            no_decay="layer_norm|bias",
            beta_1=0.9,
            beta_2=0.999,
            epsilon=1e-6,
            clip_norm=1.0,
            layerwise_lr_decay=1.0,
            layerwise_exponents="fixed",
            lr_decay_share=1.0,
        ),
    )
