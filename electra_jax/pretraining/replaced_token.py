"""Define ELECTRA's objective: replaced-token detection, with masked language modelling for the generator."""

import dataclasses
from typing import Annotated, Self

import jax
import jax.numpy as jnp
from flax import linen as nn

from electra_jax.model.types import Loss, Masked, PyTree
from electra_jax.pretraining import corruption, losses
from electra_jax.pretraining.corruption import MaskingConfig
from electra_jax.pretraining.objective import Keys, Outputs, bind_towers, corrupt

# Gin files bind WeightSchedule by this module's name.
from electra_jax.pretraining.objective import WeightSchedule as WeightSchedule
from electra_jax.ranges import AT_LEAST_0
from electra_jax.training.schedules import Schedule, value_at

DISCRIMINATE_AT = ("all", "masked")


@dataclasses.dataclass(frozen=True)
class ReplacedTokenDetection:
    """The published objective: gen_weight x L_MLM + disc_weight x L_Disc (ELECTRA, section 2).

    Attributes:
        gen_weight: weight of the generator's loss (1 as published).
        disc_weight: weight of the discriminator's loss (50 as published).
        temperature: temperature of the generator's sampling (1 as published), which a schedule may change over the
            steps; it does not affect the generator's loss.
        disallow_correct: whether to never sample the original token, so that every masked position is replaced.
        sampler: "inverse_cdf" or "gumbel", the same distribution: see `corruption.sample`.
        discriminate_at: "all" tokens as published, or only the "masked" ones ("ELECTRA 15 %", section 3.4).
    """

    gen_weight: Annotated[float, AT_LEAST_0]
    disc_weight: Annotated[float, AT_LEAST_0]
    temperature: Schedule
    disallow_correct: bool
    sampler: str
    discriminate_at: str

    @property
    def loss_weights(self) -> dict[str, float]:
        """The factor of each loss, by name."""
        return {"generator": self.gen_weight, "discriminator": self.disc_weight}

    def at(self, share: jax.Array | float) -> Self:
        """Return the objective with the temperature that it has after a share of the steps."""
        return dataclasses.replace(self, temperature=value_at(self.temperature, share))

    def denominators(self, masked: Masked, masking: MaskingConfig) -> dict[str, jax.Array]:
        """Return the number of masked positions, and of tokens that the discriminator's loss counts."""
        del masking
        return {
            "generator": jnp.sum(masked.masked_weights),
            "discriminator": jnp.sum(self.discriminated_positions(masked)),
        }

    def discriminated_positions(self, masked: Masked) -> jax.Array:
        """Return 1 at the tokens that the discriminator's loss counts, float32 [B, L]."""
        if self.discriminate_at == "masked":
            return corruption.selected(masked)
        return masked.tokens.attention_mask.astype(jnp.float32)

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
        """Run both towers once: mask -> generate -> sample -> replace -> discriminate.

        Args:
            model: a network with the methods `generate` and `discriminate`, see `model.electra`.
            params: its parameters.
            masked: the masked batch.
            keys: the keys of sampling and dropout.
            masking: how `masked` was masked.
            deterministic: whether to run without dropout.
        """
        generator, discriminator = bind_towers(model, params, keys, deterministic=deterministic)
        logits_BKV = generator(masked, method="generate")
        corrupted = corrupt(self, masked, logits_BKV, keys.sample, masking)
        logits_BL = discriminator(corrupted.tokens, method="discriminate")
        terms = {
            "generator": losses.masked_lm_loss(logits_BKV, masked.masked_ids, masked.masked_weights),
            "discriminator": losses.replaced_token_loss(
                logits_BL, corrupted.labels_BL, self.discriminated_positions(masked)
            ),
        }
        return terms, Outputs(corrupted, logits_BKV, logits_BL)
