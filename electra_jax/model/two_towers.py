"""Define a generator that reads the text once in each direction, and the network that pairs it with a discriminator.

Such a generator gives q(token | all others) at every position, without any [MASK] (Electric, Clark et al., 2020b).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from electra_jax.model.config import EncoderConfig
from electra_jax.model.embeddings import DisentangledEmbeddings, Embeddings
from electra_jax.model.towers import Discriminator, MaskedLmHead, Tower, visible
from electra_jax.model.types import Masked, Tokens


class TwoTowerGenerator(nn.Module):
    """A left-to-right and a right-to-left tower, and a head over both.

    Attributes:
        config: sizes of each tower.
        common_embeddings: the discriminator's; None if each tower has its own.
    """

    config: EncoderConfig
    common_embeddings: Embeddings | None

    def setup(self) -> None:
        """Declare the towers and the head."""

        def tower() -> Tower:
            return Tower(self.config, self.common_embeddings or Embeddings(self.config, parent=None))

        self.ltr, self.rtl = tower(), tower()
        self.head = MaskedLmHead(self.config)

    def __call__(self, tokens: Tokens, *, deterministic: bool) -> jax.Array:
        """Return float32 logits of each token given the tokens before it and after it, [B, L, V]."""
        length = tokens.input_ids.shape[1]
        before_1LS = jnp.tri(length, dtype=tokens.attention_mask.dtype)[None]
        seen = visible(tokens)
        seen_BxS = seen if tokens.example_ids is not None else seen[:, None, :]
        ltr_BLD = self.ltr.encode(tokens, deterministic=deterministic, visible_BLS=seen_BxS * before_1LS)
        rtl_BLD = self.rtl.encode(tokens, deterministic=deterministic, visible_BLS=seen_BxS * before_1LS.mT)
        # A tower's state at a token has seen that token; the state at its neighbour has not. The two ends of a row get
        # each other's state, as in the original, and the ends of packed examples get their neighbours'. Tokens there
        # are never predicted: they are [CLS], [SEP] or padding.
        both_BLD = jnp.concatenate([jnp.roll(ltr_BLD, 1, axis=1), jnp.roll(rtl_BLD, -1, axis=1)], axis=-1)
        return self.head(both_BLD, self.ltr.embeddings.word_table())


class TwoTowerElectra(nn.Module):
    """A two-tower generator and a discriminator; `embedding_sharing` is that of `electra.Electra`."""

    generator_config: EncoderConfig
    discriminator_config: EncoderConfig
    embedding_sharing: str

    def setup(self) -> None:
        """Declare the embeddings and the towers."""
        self.embeddings = common = Embeddings(self.discriminator_config)
        self.generator = TwoTowerGenerator(self.generator_config, None if self.embedding_sharing == "nes" else common)
        if self.embedding_sharing == "gdes":
            common = DisentangledEmbeddings(self.discriminator_config, self.embeddings, parent=None)
        self.discriminator = Discriminator(self.discriminator_config, common)

    def cloze(self, tokens: Tokens, *, deterministic: bool) -> jax.Array:
        """Return the generator's logits at every token, float32 [B, L, V]."""
        return self.generator(tokens, deterministic=deterministic)

    def discriminate(self, tokens: Tokens, *, deterministic: bool) -> jax.Array:
        """Return the discriminator's logits, float32 [B, L]; for Electric, the energy of each token."""
        return self.discriminator(tokens, deterministic=deterministic)

    def __call__(self, masked: Masked) -> tuple[jax.Array, jax.Array]:
        """Run all towers, so that `init` makes every parameter."""
        return self.cloze(masked.tokens, deterministic=True), self.discriminate(masked.tokens, deterministic=True)
