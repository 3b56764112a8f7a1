"""Define the networks of pre-training: a generator and a discriminator, or one encoder in both roles.

A network has a method for each tower and no losses: the objectives in `pretraining` compose the methods.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from electra_jax.errors import UserError
from electra_jax.model.config import EncoderConfig
from electra_jax.model.embeddings import DisentangledEmbeddings, Embeddings
from electra_jax.model.layers import Linear, take_positions
from electra_jax.model.towers import (
    CorrectingDiscriminator,
    Discriminator,
    Generator,
    MaskedLmHead,
    Tower,
    WordPredictor,
    forbid_padding,
    visible_before,
)
from electra_jax.model.types import Masked, Tokens

EMBEDDING_SHARING = ("es", "gdes", "nes")


def generator_config(
    discriminator: EncoderConfig, *, width_fraction: float, depth_fraction: float, embedding_size: int
) -> EncoderConfig:
    """Return a generator's sizes as fractions of the discriminator's (ELECTRA, section 3.2, rounded as released).

    The generator has one head for every 64 units of width, at least one, and a feed-forward of 4 x the width. If the
    discriminator's feed-forward is gated, the generator has the discriminator's head size and the same ratio of
    feed-forward to width.

    Args:
        discriminator: the discriminator's sizes.
        width_fraction: the generator's hidden size, as a fraction of the discriminator's.
        depth_fraction: the generator's number of layers, as a fraction of the discriminator's.
        embedding_size: the discriminator's where embeddings are shared; 0 for the generator's own hidden size.

    Raises:
        UserError: if no layer or no width is left, or the width is not divisible by the number of heads.
    """
    hidden_size = round(discriminator.hidden_size * width_fraction)
    layers = round(discriminator.num_hidden_layers * depth_fraction)
    heads, inner = max(1, hidden_size // 64), 4 * hidden_size
    if discriminator.gated_mlp:
        heads = max(1, hidden_size // discriminator.head_size)
        inner = round(discriminator.intermediate_size * width_fraction)
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
        intermediate_size=inner,
        scan_unroll=min(discriminator.scan_unroll, layers),
    )


class Electra(nn.Module):
    """A generator and a discriminator, each with its own encoder (ELECTRA, section 3.2).

    Attributes:
        generator_config, discriminator_config: their sizes.
        embedding_sharing: "es": one set of embeddings, trained by both losses, as published. "gdes": the
            discriminator adds tables of its own to the generator's embeddings, which its loss does not train
            (DeBERTaV3, section 3.3). "nes": each has its own embeddings, whose sizes may differ.
    """

    generator_config: EncoderConfig
    discriminator_config: EncoderConfig
    embedding_sharing: str

    def setup(self) -> None:
        """Declare the embeddings and the towers."""
        self.embeddings = Embeddings(self.discriminator_config)
        self.generator = Generator(self.generator_config, self.generator_embeddings())
        self.discriminator = self.main_tower(self.discriminator_embeddings())

    def main_tower(self, embeddings: Embeddings) -> nn.Module:
        """Return the tower that is kept after pre-training."""
        return Discriminator(self.discriminator_config, embeddings)

    def generator_embeddings(self) -> Embeddings:
        """Return the generator's embeddings: its own under "nes", else the common ones."""
        own = self.embedding_sharing == "nes"
        return Embeddings(self.generator_config, parent=None) if own else self.embeddings

    def discriminator_embeddings(self) -> Embeddings:
        """Return the discriminator's embeddings: the common ones, with an addition of its own under "gdes"."""
        own = self.embedding_sharing == "gdes"
        return (
            DisentangledEmbeddings(self.discriminator_config, self.embeddings, parent=None) if own else self.embeddings
        )

    def generate(self, masked: Masked, *, deterministic: bool) -> jax.Array:
        """Return the generator's logits at the masked positions, float32 [B, K, V]."""
        return self.generator(masked, deterministic=deterministic)

    def discriminate(self, tokens: Tokens, *, deterministic: bool) -> jax.Array:
        """Return the discriminator's logits, float32 [B, L]."""
        return self.discriminator(tokens, deterministic=deterministic)

    def __call__(self, masked: Masked) -> tuple[jax.Array, jax.Array]:
        """Run both towers, so that `init` makes every parameter."""
        generator_logits_BKV = self.generate(masked, deterministic=True)
        return generator_logits_BKV, self.discriminate(masked.tokens, deterministic=True)


class CorrectingElectra(Electra):
    """A generator, and a discriminator that also chooses among candidates for the masked positions."""

    def main_tower(self, embeddings: Embeddings) -> nn.Module:
        """Return the discriminator with both heads."""
        return CorrectingDiscriminator(self.discriminator_config, embeddings)

    def correct(
        self, tokens: Tokens, positions_BK: jax.Array, candidates_BKP: jax.Array, *, deterministic: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Return the discriminator's logits, float32 [B, L], and those of the candidates, float32 [B, K, P]."""
        return self.discriminator.correct(tokens, positions_BK, candidates_BKP, deterministic=deterministic)

    def __call__(self, masked: Masked) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Run both towers, so that `init` makes every parameter."""
        logits_BKV = self.generate(masked, deterministic=True)
        candidates_BKP = masked.masked_ids[..., None]
        return logits_BKV, self.correct(masked.tokens, masked.masked_positions, candidates_BKP, deterministic=True)


class Bert(nn.Module):
    """One encoder and a masked-LM head; the encoder's parameters are named as a discriminator's, for fine-tuning."""

    config: EncoderConfig

    def setup(self) -> None:
        """Declare the encoder and the head."""
        self.embeddings = Embeddings(self.config)
        self.discriminator = self.main_tower(self.embeddings)
        self.generator = WordPredictor(self.config)

    def main_tower(self, embeddings: Embeddings) -> Tower:
        """Return the encoder."""
        return Tower(self.config, embeddings)

    def generate(self, masked: Masked, *, deterministic: bool) -> jax.Array:
        """Return logits over the vocabulary at the masked positions, float32 [B, K, V]."""
        hidden_BLD = self.discriminator.encode(masked.tokens, deterministic=deterministic)
        hidden_BKD = take_positions(hidden_BLD, masked.masked_positions)
        return self.generator(hidden_BKD, self.embeddings.word_table())

    def __call__(self, masked: Masked) -> jax.Array:
        """Run the encoder and its head, so that `init` makes every parameter."""
        return self.generate(masked, deterministic=True)


class LeftToRightModel(Bert):
    """One encoder that reads from the left, and a head that predicts the next token; its parameters are BERT's."""

    def predict_next(self, tokens: Tokens, *, deterministic: bool) -> jax.Array:
        """Return logits of the token after each one, given it and those before it, float32 [B, L, V]."""
        hidden_BLD = self.discriminator.encode(tokens, deterministic=deterministic, visible_BLS=visible_before(tokens))
        return self.generator(hidden_BLD, self.embeddings.word_table())

    def __call__(self, masked: Masked) -> jax.Array:
        """Run the encoder and its head, so that `init` makes every parameter."""
        return self.predict_next(masked.tokens, deterministic=True)


class TiedElectra(Bert):
    """One encoder that generates and discriminates, with a head for each."""

    def main_tower(self, embeddings: Embeddings) -> Tower:
        """Return the encoder with the discriminator's head."""
        return Discriminator(self.config, embeddings)

    def discriminate(self, tokens: Tokens, *, deterministic: bool) -> jax.Array:
        """Return the replaced-token logits, float32 [B, L]."""
        return self.discriminator(tokens, deterministic=deterministic)

    def __call__(self, masked: Masked) -> tuple[jax.Array, jax.Array]:
        """Run both heads, so that `init` makes every parameter."""
        logits_BKV = self.generate(masked, deterministic=True)
        return logits_BKV, self.discriminate(masked.tokens, deterministic=True)


class UniformElectra(nn.Module):
    """A discriminator whose replacements are drawn uniformly from the vocabulary, without a generator to train.

    As in the original, any id may be drawn, and the generator's loss is the constant log V.
    """

    config: EncoderConfig

    def setup(self) -> None:
        """Declare the discriminator."""
        self.embeddings = Embeddings(self.config)
        self.discriminator = Discriminator(self.config, self.embeddings)

    def generate(self, masked: Masked, *, deterministic: bool) -> jax.Array:
        """Return equal logits at the masked positions, float32 [B, K, V]."""
        del deterministic
        logits_BKV = jnp.zeros((*masked.masked_positions.shape, self.config.padded_vocab_size), jnp.float32)
        return forbid_padding(logits_BKV, self.config)

    def discriminate(self, tokens: Tokens, *, deterministic: bool) -> jax.Array:
        """Return the discriminator's logits, float32 [B, L]."""
        return self.discriminator(tokens, deterministic=deterministic)

    def __call__(self, masked: Masked) -> jax.Array:
        """Run the discriminator, so that `init` makes every parameter."""
        return self.discriminate(masked.tokens, deterministic=True)


class WordTower(Tower):
    """The encoder that is kept after pre-training, with a head that predicts words."""

    def setup(self) -> None:
        """Declare the encoder and its head."""
        super().setup()
        self.head = MaskedLmHead(self.config)

    def __call__(self, tokens: Tokens, positions_BK: jax.Array, *, deterministic: bool) -> jax.Array:
        """Return float32 logits at these positions, [B, K, V]."""
        hidden_BLD = self.encode(tokens, deterministic=deterministic)
        return self.head(take_positions(hidden_BLD, positions_BK), self.embeddings.word_table())


class CopyingWordTower(WordTower):
    """An encoder that predicts every word, with a gate that copies the token it reads."""

    def setup(self) -> None:
        """Declare the encoder, its head and the gate."""
        super().setup()
        self.copy_gate = Linear(1, ("embed", None), self.config.initializer, jnp.float32)

    def __call__(self, tokens: Tokens, *, deterministic: bool) -> tuple[jax.Array, jax.Array]:
        """Return float32 logits of words, [B, L, V], and of copying the token that was read, [B, L]."""
        hidden_BLD = self.encode(tokens, deterministic=deterministic)
        return self.head(hidden_BLD, self.embeddings.word_table()), self.copy_gate(hidden_BLD)[..., 0]


class ReplaceMlmModel(Electra):
    """A generator, and a tower that predicts the original words at the positions where the generator's samples are."""

    def main_tower(self, embeddings: Embeddings) -> nn.Module:
        """Return the tower in the discriminator's place."""
        return WordTower(self.discriminator_config, embeddings)

    def correct(self, tokens: Tokens, positions_BK: jax.Array, *, deterministic: bool) -> jax.Array:
        """Return logits over the vocabulary at these positions, float32 [B, K, V]."""
        return self.discriminator(tokens, positions_BK, deterministic=deterministic)

    def __call__(self, masked: Masked) -> tuple[jax.Array, jax.Array]:
        """Run both towers, so that `init` makes every parameter."""
        logits_BKV = self.generate(masked, deterministic=True)
        return logits_BKV, self.correct(masked.tokens, masked.masked_positions, deterministic=True)


class AllTokensMlmModel(Electra):
    """A generator, and a tower that predicts every original word of the corrupted text."""

    def main_tower(self, embeddings: Embeddings) -> nn.Module:
        """Return the tower in the discriminator's place."""
        return CopyingWordTower(self.discriminator_config, embeddings)

    def correct(self, tokens: Tokens, *, deterministic: bool) -> tuple[jax.Array, jax.Array]:
        """Return logits of words, float32 [B, L, V], and of copying, float32 [B, L]."""
        return self.discriminator(tokens, deterministic=deterministic)

    def __call__(self, masked: Masked) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Run both towers, so that `init` makes every parameter."""
        return self.generate(masked, deterministic=True), self.correct(masked.tokens, deterministic=True)
