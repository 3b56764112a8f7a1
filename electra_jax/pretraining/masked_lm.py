"""Objectives whose kept encoder predicts words: BERT's, and two ablations of ELECTRA (section 3.4).

Replace-MLM is BERT's with a generator's samples in place of [MASK]; all-tokens MLM predicts every token of such a
text, with a gate that may copy the token it reads.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from electra_jax.model.encoder import Embeddings, Linear
from electra_jax.model.towers import MaskedLmHead, Tower
from electra_jax.model.types import Corrupted, Loss, Masked, PyTree, Tokens
from electra_jax.pretraining import corruption, losses, replaced_token
from electra_jax.pretraining.corruption import MaskingConfig
from electra_jax.pretraining.replaced_token import Bert, Electra, Keys, Outputs


@dataclasses.dataclass(frozen=True)
class MaskedLanguageModel:
    """BERT's objective with masks drawn anew each time, by the full-size encoder.

    Attributes:
        weight: of the loss.
    """

    weight: float

    @property
    def loss_weights(self) -> dict[str, float]:
        """The factor of each loss, by name."""
        return {"prediction": self.weight}

    def denominators(self, masked: Masked, masking: MaskingConfig) -> dict[str, jax.Array]:
        """See `pretraining.Objective`."""
        del masking
        return {"prediction": jnp.sum(masked.masked_weights)}

    def losses(
        self, model: Bert, params: PyTree, masked: Masked, keys: Keys, *, masking: MaskingConfig, deterministic: bool
    ) -> tuple[dict[str, Loss], Outputs]:
        """One forward pass of the encoder over the masked text."""
        del masking
        main = replaced_token.towers(model, params, keys, deterministic=deterministic).main
        logits_BKV = main(masked, method="generate")
        terms = {"prediction": losses.masked_lm_loss(logits_BKV, masked.masked_ids, masked.masked_weights)}
        return terms, Outputs(prediction_logits_BKV=logits_BKV)


class WordTower(Tower):
    """The encoder that is kept, predicting words."""

    def setup(self) -> None:
        """Declares the encoder and its head."""
        super().setup()
        self.head = MaskedLmHead(self.config)

    def __call__(self, tokens: Tokens, positions_BK: jax.Array, *, deterministic: bool) -> jax.Array:
        """Float32 logits [B, K, V] at these positions."""
        hidden_BLD = self.encode(tokens, deterministic=deterministic)
        return self.head(corruption.take_positions(hidden_BLD, positions_BK), self.embeddings.word_table())


class CopyingWordTower(WordTower):
    """The same for every token, with a gate that copies."""

    def setup(self) -> None:
        """Declares the encoder, its head and the gate."""
        super().setup()
        self.copy_gate = Linear(1, ("embed", None), self.config.initializer, jnp.float32)

    def __call__(self, tokens: Tokens, *, deterministic: bool) -> tuple[jax.Array, jax.Array]:
        """Float32 logits [B, L, V] of words, and [B, L] of copying the token that was read."""
        hidden_BLD = self.encode(tokens, deterministic=deterministic)
        return self.head(hidden_BLD, self.embeddings.word_table()), self.copy_gate(hidden_BLD)[..., 0]


class ReplaceMlmModel(Electra):
    """A generator, and a tower that predicts the words at the masked positions of what it wrote."""

    def main_tower(self, embeddings: Embeddings) -> nn.Module:
        """The tower in the discriminator's place."""
        return WordTower(self.discriminator_config, embeddings)

    def correct(self, tokens: Tokens, positions_BK: jax.Array, *, deterministic: bool) -> jax.Array:
        """Logits over the vocabulary at these positions, float32 [B, K, V]."""
        return self.discriminator(tokens, positions_BK, deterministic=deterministic)

    def __call__(self, masked: Masked) -> tuple[jax.Array, jax.Array]:
        """Both towers once, for `init`."""
        logits_BKV = self.generate(masked, deterministic=True)
        return logits_BKV, self.correct(masked.tokens, masked.masked_positions, deterministic=True)


class AllTokensMlmModel(Electra):
    """A generator, and a tower that predicts every word of what it wrote."""

    def main_tower(self, embeddings: Embeddings) -> nn.Module:
        """The tower in the discriminator's place."""
        return CopyingWordTower(self.discriminator_config, embeddings)

    def correct(self, tokens: Tokens, *, deterministic: bool) -> tuple[jax.Array, jax.Array]:
        """Logits of words, float32 [B, L, V], and of copying, float32 [B, L]."""
        return self.discriminator(tokens, deterministic=deterministic)

    def __call__(self, masked: Masked) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Both towers once, for `init`."""
        return self.generate(masked, deterministic=True), self.correct(masked.tokens, deterministic=True)


@dataclasses.dataclass(frozen=True)
class ReplaceMlm:
    """Masked language modelling with a generator's samples in place of [MASK] ("Replace MLM").

    Attributes:
        gen_weight: weight of the generator's loss.
        prediction_weight: weight of the main tower's loss.
        temperature, disallow_correct, sampler: see `pretraining.ReplacedTokenDetection`.
    """

    gen_weight: float
    prediction_weight: float
    temperature: float
    disallow_correct: bool
    sampler: str

    @property
    def loss_weights(self) -> dict[str, float]:
        """The factor of each loss, by name."""
        return {"generator": self.gen_weight, "prediction": self.prediction_weight}

    def denominators(self, masked: Masked, masking: MaskingConfig) -> dict[str, jax.Array]:
        """See `pretraining.Objective`."""
        del masking
        return {"generator": jnp.sum(masked.masked_weights), "prediction": jnp.sum(masked.masked_weights)}

    def predict(self, main: Callable[..., Any], masked: Masked, corrupted: Corrupted) -> tuple[Loss, jax.Array]:
        """The main tower's loss, and its logits at the masked positions, float32 [B, K, V]."""
        logits_BKV = main(corrupted.tokens, masked.masked_positions, method="correct")
        loss = losses.masked_lm_loss(logits_BKV, masked.masked_ids, masked.masked_weights)
        return loss, logits_BKV

    def losses(
        self, model: Electra, params: PyTree, masked: Masked, keys: Keys, *, masking: MaskingConfig, deterministic: bool
    ) -> tuple[dict[str, Loss], Outputs]:
        """One forward pass of both towers: mask -> generate -> sample -> replace -> predict words."""
        generator, main = replaced_token.towers(model, params, keys, deterministic=deterministic)
        logits_BKV = generator(masked, method="generate")
        corrupted = replaced_token.corrupt(
            masked,
            logits_BKV,
            keys.sample,
            temperature=self.temperature,
            disallow_correct=self.disallow_correct,
            sampler=self.sampler,
            masking=masking,
        )
        prediction, main_BKV = self.predict(main, masked, corrupted)
        terms = {
            "generator": losses.masked_lm_loss(logits_BKV, masked.masked_ids, masked.masked_weights),
            "prediction": prediction,
        }
        return terms, Outputs(corrupted, logits_BKV, prediction_logits_BKV=main_BKV)


@dataclasses.dataclass(frozen=True)
class AllTokensMlm(ReplaceMlm):
    """Prediction of every token of the corrupted text, by copying it or by naming the word ("All-Tokens MLM").

    p(x) = D [x is what was read] + (1 - D) softmax(x), with D of each token from a sigmoid.
    """

    def denominators(self, masked: Masked, masking: MaskingConfig) -> dict[str, jax.Array]:
        """See `pretraining.Objective`."""
        del masking
        return {
            "generator": jnp.sum(masked.masked_weights),
            "prediction": jnp.sum(masked.tokens.attention_mask.astype(jnp.float32)),
        }

    def predict(self, main: Callable[..., Any], masked: Masked, corrupted: Corrupted) -> tuple[Loss, jax.Array]:
        """The main tower's loss over every real token, and its log-probabilities at the masked positions."""
        logits_BLV, gate_BL = main(corrupted.tokens, method="correct")
        read_BL = corrupted.tokens.input_ids
        loss = losses.copying_lm_loss(
            logits_BLV, gate_BL, read_BL, corruption.original_ids(masked), masked.tokens.attention_mask
        )
        at_masked = (
            corruption.take_positions(values, masked.masked_positions) for values in (logits_BLV, gate_BL, read_BL)
        )
        return loss, losses.copying_log_probs(*at_masked)
