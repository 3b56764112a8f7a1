"""Define objectives whose kept encoder predicts words: BERT's, and two ablations of ELECTRA (section 3.4).

Replace-MLM is BERT's with a generator's samples in place of [MASK]; all-tokens MLM predicts every original token of
such a text, with a gate that may copy the token it reads.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, Self

import jax
import jax.numpy as jnp

from electra_jax.model.electra import Bert, Electra
from electra_jax.model.layers import take_positions
from electra_jax.model.types import Corrupted, Loss, Masked, PyTree
from electra_jax.pretraining import corruption, losses
from electra_jax.pretraining.corruption import MaskingConfig
from electra_jax.pretraining.objective import Keys, Outputs, bind_towers, corrupt
from electra_jax.ranges import AT_LEAST_0
from electra_jax.training.schedules import Schedule, value_at


@dataclasses.dataclass(frozen=True)
class MaskedLanguageModel:
    """BERT's objective, with new masks in every epoch, on the full-size encoder.

    Attributes:
        weight: weight of the loss.
    """

    weight: Annotated[float, AT_LEAST_0]

    @property
    def loss_weights(self) -> dict[str, float]:
        """The factor of each loss, by name."""
        return {"prediction": self.weight}

    def at(self, share: jax.Array | float) -> Self:
        """Return the objective itself, which has no schedule."""
        del share
        return self

    def denominators(self, masked: Masked, masking: MaskingConfig) -> dict[str, jax.Array]:
        """Return the weight of each loss, see `Objective`."""
        del masking
        return {"prediction": jnp.sum(masked.masked_weights)}

    def losses(
        self, model: Bert, params: PyTree, masked: Masked, keys: Keys, *, masking: MaskingConfig, deterministic: bool
    ) -> tuple[dict[str, Loss], Outputs]:
        """Run the encoder once over the masked text."""
        del masking
        main = bind_towers(model, params, keys, deterministic=deterministic).main
        logits_BKV = main(masked, method="generate")
        terms = {"prediction": losses.masked_lm_loss(logits_BKV, masked.masked_ids, masked.masked_weights)}
        return terms, Outputs(prediction_logits_BKV=logits_BKV)


@dataclasses.dataclass(frozen=True)
class ReplaceMlm:
    """Masked language modelling with a generator's samples in place of [MASK] ("Replace MLM").

    Attributes:
        gen_weight: weight of the generator's loss.
        prediction_weight: weight of the main tower's loss.
        temperature, disallow_correct, sampler: see `replaced_token.ReplacedTokenDetection`.
    """

    gen_weight: Annotated[float, AT_LEAST_0]
    prediction_weight: Annotated[float, AT_LEAST_0]
    temperature: Schedule
    disallow_correct: bool
    sampler: str

    @property
    def loss_weights(self) -> dict[str, float]:
        """The factor of each loss, by name."""
        return {"generator": self.gen_weight, "prediction": self.prediction_weight}

    def at(self, share: jax.Array | float) -> Self:
        """Return the objective with the temperature that it has after a share of the steps."""
        return dataclasses.replace(self, temperature=value_at(self.temperature, share))

    def denominators(self, masked: Masked, masking: MaskingConfig) -> dict[str, jax.Array]:
        """Return the weight of each loss, see `Objective`."""
        del masking
        return {"generator": jnp.sum(masked.masked_weights), "prediction": jnp.sum(masked.masked_weights)}

    def predict(self, main: Callable[..., Any], masked: Masked, corrupted: Corrupted) -> tuple[Loss, jax.Array]:
        """Return the main tower's loss, and its logits at the masked positions, float32 [B, K, V]."""
        logits_BKV = main(corrupted.tokens, masked.masked_positions, method="correct")
        loss = losses.masked_lm_loss(logits_BKV, masked.masked_ids, masked.masked_weights)
        return loss, logits_BKV

    def losses(
        self, model: Electra, params: PyTree, masked: Masked, keys: Keys, *, masking: MaskingConfig, deterministic: bool
    ) -> tuple[dict[str, Loss], Outputs]:
        """Run both towers once: mask -> generate -> sample -> replace -> predict words."""
        generator, main = bind_towers(model, params, keys, deterministic=deterministic)
        logits_BKV = generator(masked, method="generate")
        corrupted = corrupt(self, masked, logits_BKV, keys.sample, masking)
        prediction, main_BKV = self.predict(main, masked, corrupted)
        terms = {
            "generator": losses.masked_lm_loss(logits_BKV, masked.masked_ids, masked.masked_weights),
            "prediction": prediction,
        }
        return terms, Outputs(corrupted, logits_BKV, prediction_logits_BKV=main_BKV)


@dataclasses.dataclass(frozen=True)
class AllTokensMlm(ReplaceMlm):
    """Prediction of every original token, by copying the token read or by naming the word ("All-Tokens MLM").

    p(x) = D [x is what was read] + (1 - D) softmax(x), with a sigmoid D for each token.
    """

    def denominators(self, masked: Masked, masking: MaskingConfig) -> dict[str, jax.Array]:
        """Return the weight of each loss, see `Objective`."""
        del masking
        return {
            "generator": jnp.sum(masked.masked_weights),
            "prediction": jnp.sum(masked.tokens.attention_mask.astype(jnp.float32)),
        }

    def predict(self, main: Callable[..., Any], masked: Masked, corrupted: Corrupted) -> tuple[Loss, jax.Array]:
        """Return the main tower's loss over every real token, and its log-probabilities at the masked positions."""
        logits_BLV, gate_BL = main(corrupted.tokens, method="correct")
        read_BL = corrupted.tokens.input_ids
        loss = losses.copying_lm_loss(
            logits_BLV, gate_BL, read_BL, corruption.original_ids(masked), masked.tokens.attention_mask
        )
        at_masked = (take_positions(values, masked.masked_positions) for values in (logits_BLV, gate_BL, read_BL))
        return loss, losses.copying_log_probs(*at_masked)
