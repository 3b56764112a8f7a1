"""Define the objective of a left-to-right language model: the encoder predicts each token from those before it."""

import dataclasses
from typing import Annotated, Self

import jax
import jax.numpy as jnp

from electra_jax.model.electra import LeftToRightModel
from electra_jax.model.layers import take_positions
from electra_jax.model.types import Loss, Masked, PyTree, Tokens
from electra_jax.pretraining import corruption, losses
from electra_jax.pretraining.corruption import MaskingConfig
from electra_jax.pretraining.objective import Keys, Outputs, bind_towers
from electra_jax.ranges import AT_LEAST_0


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """Prediction of every token but the first of an example from the tokens before it, on the full-size encoder.

    Nothing is masked: the masks of a batch are undone, and only tell where the accuracy is counted.

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
        return {"prediction": jnp.sum(has_next(masked.tokens))}

    def losses(
        self,
        model: LeftToRightModel,
        params: PyTree,
        masked: Masked,
        keys: Keys,
        *,
        masking: MaskingConfig,
        deterministic: bool,
    ) -> tuple[dict[str, Loss], Outputs]:
        """Run the encoder once over the original text."""
        del masking
        original = masked.tokens._replace(input_ids=corruption.original_ids(masked))
        main = bind_towers(model, params, keys, deterministic=deterministic).main
        logits_BLV = main(original, method="predict_next")
        next_BL = jnp.roll(original.input_ids, -1, axis=1)
        terms = {"prediction": losses.masked_lm_loss(logits_BLV, next_BL, has_next(original))}
        # An unused slot has position 0, and no weight.
        before_BK = jnp.maximum(masked.masked_positions - 1, 0)
        return terms, Outputs(prediction_logits_BKV=take_positions(logits_BLV, before_BK))


def has_next(tokens: Tokens) -> jax.Array:
    """Return 1 where the next token of the row is one of the same example, float32 [B, L]."""
    examples_BL = tokens.attention_mask if tokens.example_ids is None else tokens.example_ids
    same_BL = (examples_BL > 0) & (examples_BL == jnp.roll(examples_BL, -1, axis=1))
    # The last token's next one would be the row's first.
    return same_BL.at[:, -1].set(False).astype(jnp.float32)
