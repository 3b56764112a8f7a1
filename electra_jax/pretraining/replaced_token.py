"""Generator, discriminator, and the published objective that composes them.

The models know nothing of losses, and the objective nothing of layers: a variant of ELECTRA is another composition
of the same pieces (`towers`, `corruption`, `generate`, `discriminate`, `losses`). More of them: `word_objectives`
(models that predict words), `electric` (two-tower generators); which go together: `variants`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn

from electra_jax.errors import UserError
from electra_jax.model.encoder import DisentangledEmbeddings, Embeddings, EncoderConfig
from electra_jax.model.towers import Discriminator, Generator, Tower, WordPredictor
from electra_jax.model.types import Corrupted, Loss, Masked, PyTree, Tokens
from electra_jax.pretraining import corruption, losses
from electra_jax.pretraining.corruption import MaskingConfig


def generator_config(
    discriminator: EncoderConfig, *, width_fraction: float, depth_fraction: float, embedding_size: int
) -> EncoderConfig:
    """The generator's sizes as fractions of the discriminator's (ELECTRA, section 3.2, as the release rounds them).

    Heads are one for every 64 of width, at least one; the feed-forward is 4 x the width.

    Args:
        discriminator: its sizes.
        width_fraction: of its hidden size.
        depth_fraction: of its layers.
        embedding_size: the discriminator's where embeddings are shared; 0 for the generator's own hidden size.

    Raises:
        UserError: no layer is left, or the width is not divisible by its heads.
    """
    hidden_size = round(discriminator.hidden_size * width_fraction)
    layers = round(discriminator.num_hidden_layers * depth_fraction)
    heads = max(1, hidden_size // 64)
    if hidden_size < 1 or layers < 1:
        raise UserError(
            f"a generator of width fraction {width_fraction} and depth fraction {depth_fraction} has {layers} layers "
            f"of {hidden_size}: choose larger generator_width_fraction and generator_depth_fraction"
        )
    if hidden_size % heads:
        raise UserError(
            f"a generator of width fraction {width_fraction} has hidden size {hidden_size}, which is not divisible "
            f"by its {heads} heads: choose another generator_width_fraction"
        )
    return dataclasses.replace(
        discriminator,
        hidden_size=hidden_size,
        embedding_size=embedding_size or hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden_size,
        scan_unroll=min(discriminator.scan_unroll, layers),
    )


EMBEDDING_SHARING = ("es", "gdes", "nes")


class Electra(nn.Module):
    """A generator and a discriminator, each with its own encoder (ELECTRA, section 3.2).

    Attributes:
        generator_config, discriminator_config: their sizes.
        embedding_sharing: between the towers. "es": one set of embeddings, pulled at by both losses, as published.
            "gdes": the discriminator reads the generator's and adds tables of its own, and its loss does not reach
            the generator's (DeBERTaV3, section 3.3). "nes": each has its own, of sizes that may differ.
    """

    generator_config: EncoderConfig
    discriminator_config: EncoderConfig
    embedding_sharing: str

    def setup(self) -> None:
        """Declares the embeddings and the towers."""
        self.embeddings = Embeddings(self.discriminator_config)
        self.generator = Generator(self.generator_config, self.generator_embeddings())
        self.discriminator = self.main_tower(self.discriminator_embeddings())

    def main_tower(self, embeddings: Embeddings) -> nn.Module:
        """The tower that is kept."""
        return Discriminator(self.discriminator_config, embeddings)

    def generator_embeddings(self) -> Embeddings:
        """What the generator reads: its own under "nes", else the common ones."""
        own = self.embedding_sharing == "nes"
        return Embeddings(self.generator_config, parent=None) if own else self.embeddings

    def discriminator_embeddings(self) -> Embeddings:
        """What the discriminator reads: the common ones, with an addition of its own under "gdes"."""
        own = self.embedding_sharing == "gdes"
        return (
            DisentangledEmbeddings(self.discriminator_config, self.embeddings, parent=None) if own else self.embeddings
        )

    def generate(self, masked: Masked, *, deterministic: bool) -> jax.Array:
        """The generator's logits at the masked positions, float32 [B, K, V]."""
        return self.generator(masked, deterministic=deterministic)

    def discriminate(self, tokens: Tokens, *, deterministic: bool) -> jax.Array:
        """The discriminator's logits, float32 [B, L]."""
        return self.discriminator(tokens, deterministic=deterministic)

    def __call__(self, masked: Masked) -> tuple[jax.Array, jax.Array]:
        """Both towers once: what `init` traces to make every parameter."""
        generator_logits_BKV = self.generate(masked, deterministic=True)
        return generator_logits_BKV, self.discriminate(masked.tokens, deterministic=True)


class Bert(nn.Module):
    """One encoder and a masked-LM head; the encoder stands where a discriminator's would, for fine-tuning."""

    config: EncoderConfig

    def setup(self) -> None:
        """Declares the encoder and the head."""
        self.embeddings = Embeddings(self.config)
        self.discriminator = self.main_tower(self.embeddings)
        self.generator = WordPredictor(self.config)

    def main_tower(self, embeddings: Embeddings) -> Tower:
        """The encoder."""
        return Tower(self.config, embeddings)

    def generate(self, masked: Masked, *, deterministic: bool) -> jax.Array:
        """Logits over the vocabulary at the masked positions, float32 [B, K, V]."""
        hidden_BLD = self.discriminator.encode(masked.tokens, deterministic=deterministic)
        hidden_BKD = corruption.take_positions(hidden_BLD, masked.masked_positions)
        return self.generator(hidden_BKD, self.embeddings.word_table())

    def __call__(self, masked: Masked) -> jax.Array:
        """The encoder and its head once, for `init`."""
        return self.generate(masked, deterministic=True)


class TiedElectra(Bert):
    """One encoder that generates and discriminates, with a head for each."""

    def main_tower(self, embeddings: Embeddings) -> Tower:
        """The encoder, with the discriminator's head."""
        return Discriminator(self.config, embeddings)

    def discriminate(self, tokens: Tokens, *, deterministic: bool) -> jax.Array:
        """The replaced-token logits, float32 [B, L]."""
        return self.discriminator(tokens, deterministic=deterministic)

    def __call__(self, masked: Masked) -> tuple[jax.Array, jax.Array]:
        """Both heads once, for `init`."""
        logits_BKV = self.generate(masked, deterministic=True)
        return logits_BKV, self.discriminate(masked.tokens, deterministic=True)


class UniformElectra(nn.Module):
    """A discriminator of tokens drawn uniformly from the vocabulary: no generator to train.

    As in the original, any id may be drawn, and the generator's loss is the constant log V.
    """

    config: EncoderConfig

    def setup(self) -> None:
        """Declares the discriminator."""
        self.embeddings = Embeddings(self.config)
        self.discriminator = Discriminator(self.config, self.embeddings)

    def generate(self, masked: Masked, *, deterministic: bool) -> jax.Array:
        """Equal logits at the masked positions, float32 [B, K, V]."""
        del deterministic
        return jnp.zeros((*masked.masked_positions.shape, self.config.vocab_size), jnp.float32)

    def discriminate(self, tokens: Tokens, *, deterministic: bool) -> jax.Array:
        """The discriminator's logits, float32 [B, L]."""
        return self.discriminator(tokens, deterministic=deterministic)

    def __call__(self, masked: Masked) -> jax.Array:
        """The discriminator once, for `init`."""
        return self.discriminate(masked.tokens, deterministic=True)


class Keys(NamedTuple):
    """The random keys of one forward pass; `sample` holds one key per row (or see `corruption.sample`)."""

    sample: jax.Array
    generator_dropout: jax.Array
    discriminator_dropout: jax.Array


class Towers(NamedTuple):
    """The two towers of a forward pass: `model.apply` with all but the inputs and the `method` given."""

    generator: Callable[..., Any]
    main: Callable[..., Any]


def towers(model: nn.Module, params: PyTree, keys: Keys, *, deterministic: bool) -> Towers:
    """A model's towers with their parameters, each with dropout of its own."""

    def bound(dropout: jax.Array) -> Callable[..., Any]:
        return functools.partial(
            model.apply, {"params": params}, deterministic=deterministic, rngs={"dropout": dropout}
        )

    return Towers(bound(keys.generator_dropout), bound(keys.discriminator_dropout))


class Outputs(NamedTuple):
    """What a forward pass computed, for metrics and for people; None for what an objective has not."""

    corrupted: Corrupted | None = None
    generator_logits_BKV: jax.Array | None = None
    discriminator_logits_BL: jax.Array | None = None
    prediction_logits_BKV: jax.Array | None = None  # of a main tower that predicts words, at the masked positions


@dataclasses.dataclass(frozen=True)
class WeightSchedule:
    """How the discriminator's weight changes over the steps: linearly from 1 x disc_weight to `disc_weight_end` x.

    The generator learns first, and cannot learn from the discriminator; a discriminator that counts for less and less
    leaves more of the shared tables' gradient, and of a clipped one all the more, to it. No paper that we know of
    publishes such a schedule; ELECTRA's authors name a factor of the step as the way to weight the loss over time
    (google-research/electra, issue 37). Reported losses keep the weights of the beginning, so that their curves fall
    by learning alone.

    Attributes:
        disc_weight_end: share of disc_weight that is left at the last step; 1 for a constant weight, as published.
        num_train_steps: where it is reached.
    """

    disc_weight_end: float
    num_train_steps: int

    def __post_init__(self) -> None:
        """Refuses a negative weight.

        Raises:
            UserError: names it.
        """
        if self.disc_weight_end < 0:
            raise UserError(f"DISC_WEIGHT_END is {self.disc_weight_end}: it must be at least 0")

    def factors(self, step: jax.Array | int) -> dict[str, jax.Array]:
        """By what each loss's weight is multiplied at an update, counted from 0; of the others it is not."""
        done = jnp.minimum(jnp.asarray(step, jnp.float32), self.num_train_steps) / self.num_train_steps
        return {"discriminator": 1.0 + (self.disc_weight_end - 1.0) * done}


CONSTANT_WEIGHTS = WeightSchedule(disc_weight_end=1.0, num_train_steps=1)


class Objective(Protocol):
    """What a step asks of an objective."""

    @property
    def loss_weights(self) -> dict[str, float]:
        """The factor of each loss, by name."""

    def denominators(self, masked: Masked, masking: MaskingConfig) -> dict[str, jax.Array]:
        """The weight that each loss of `losses` will have over this batch, known before any forward pass."""

    def losses(
        self,
        model: nn.Module,
        params: PyTree,
        masked: Masked,
        keys: Keys,
        *,
        masking: MaskingConfig,
        deterministic: bool,
    ) -> tuple[dict[str, Loss], Outputs]:
        """One forward pass of the model over a masked batch."""


def corrupt(
    masked: Masked,
    logits_BKV: jax.Array,
    keys_B: jax.Array,
    *,
    temperature: float,
    disallow_correct: bool,
    sampler: str,
    masking: MaskingConfig,
) -> Corrupted:
    """Samples from the generator and puts the samples at the masked positions.

    Args:
        masked: the generator's input.
        logits_BKV: the generator's output.
        keys_B: see `corruption.sample`.
        temperature: divides the logits.
        disallow_correct: never draw the original token.
        sampler: see `corruption.sample`.
        masking: says whether positions may repeat, and what to do then.
    """
    if disallow_correct:
        logits_BKV = corruption.forbid(logits_BKV, masked.masked_ids)
    sampled_BK = corruption.sample(keys_B, logits_BKV, temperature, sampler)
    if not masking.with_replacement:
        return corruption.replace(masked, sampled_BK)
    settled_BK = corruption.settle_duplicates(masked, sampled_BK, average=masking.average_duplicates)
    return corruption.replace(masked, settled_BK)._replace(sampled_ids_BK=sampled_BK)


DISCRIMINATE_AT = ("all", "masked")


@dataclasses.dataclass(frozen=True)
class ReplacedTokenDetection:
    """The published objective: gen_weight x L_MLM + disc_weight x L_Disc (ELECTRA, section 2).

    Attributes:
        gen_weight: weight of the generator's loss (1 as published).
        disc_weight: weight of the discriminator's loss (50 as published).
        temperature: of the generator's sampling (1 as published); the generator's loss never sees it.
        disallow_correct: never sample the original token, so that every masked position is a replaced one.
        sampler: "inverse_cdf" or "gumbel", the same distribution: see `corruption.sample`.
        discriminate_at: "all" tokens as published, or only the "masked" ones ("ELECTRA 15 %", section 3.4).
    """

    gen_weight: float
    disc_weight: float
    temperature: float
    disallow_correct: bool
    sampler: str
    discriminate_at: str

    @property
    def loss_weights(self) -> dict[str, float]:
        """The factor of each loss, by name."""
        return {"generator": self.gen_weight, "discriminator": self.disc_weight}

    def denominators(self, masked: Masked, masking: MaskingConfig) -> dict[str, jax.Array]:
        """See `Objective`."""
        del masking
        return {
            "generator": jnp.sum(masked.masked_weights),
            "discriminator": jnp.sum(self.judged(masked)),
        }

    def judged(self, masked: Masked) -> jax.Array:
        """1 at the tokens that the discriminator's loss counts, float32 [B, L]."""
        if self.discriminate_at == "masked":
            return corruption.selected(masked)
        return masked.tokens.attention_mask.astype(jnp.float32)

    def losses(
        self,
        model: Electra,
        params: PyTree,
        masked: Masked,
        keys: Keys,
        *,
        masking: MaskingConfig,
        deterministic: bool,
    ) -> tuple[dict[str, Loss], Outputs]:
        """One forward pass of both towers: mask -> generate -> sample -> replace -> discriminate."""
        generator, main = towers(model, params, keys, deterministic=deterministic)
        logits_BKV = generator(masked, method="generate")
        corrupted = corrupt(
            masked,
            logits_BKV,
            keys.sample,
            temperature=self.temperature,
            disallow_correct=self.disallow_correct,
            sampler=self.sampler,
            masking=masking,
        )
        logits_BL = main(corrupted.tokens, method="discriminate")
        terms = {
            "generator": losses.masked_lm_loss(logits_BKV, masked.masked_ids, masked.masked_weights),
            "discriminator": losses.replaced_token_loss(logits_BL, corrupted.labels_BL, self.judged(masked)),
        }
        return terms, Outputs(corrupted, logits_BKV, logits_BL)
