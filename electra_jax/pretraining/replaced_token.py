"""ELECTRA's objective: replaced-token detection beside the generator's masked language modelling."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from electra_jax.errors import UserError
from electra_jax.model.types import Loss, Masked, PyTree
from electra_jax.pretraining import corruption, losses
from electra_jax.pretraining.corruption import MaskingConfig
from electra_jax.pretraining.objective import Keys, Outputs, bind_towers, corrupt

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
            keys: of sampling and dropout.
            masking: how `masked` was masked.
            deterministic: run without dropout.
        """
        generator, discriminator = bind_towers(model, params, keys, deterministic=deterministic)
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
        logits_BL = discriminator(corrupted.tokens, method="discriminate")
        terms = {
            "generator": losses.masked_lm_loss(logits_BKV, masked.masked_ids, masked.masked_weights),
            "discriminator": losses.replaced_token_loss(
                logits_BL, corrupted.labels_BL, self.discriminated_positions(masked)
            ),
        }
        return terms, Outputs(corrupted, logits_BKV, logits_BL)


@dataclasses.dataclass(frozen=True)
class WeightSchedule:
    """Changes the discriminator's weight over the steps, linearly from 1 x disc_weight to `disc_weight_end` x.

    The generator learns first, and cannot learn from the discriminator; a discriminator whose weight falls leaves more
    of the gradient of shared tables to the generator, above all where the gradient is clipped. We know of no paper
    that publishes such a schedule; ELECTRA's authors name a factor of the step as the way to weight the loss over time
    (google-research/electra, issue 37). Reported losses keep the weights of the first step, so that their curves fall
    by learning alone.

    Attributes:
        disc_weight_end: share of disc_weight that is left at the last step; 1 for a constant weight, as published.
        num_train_steps: the last step.
    """

    disc_weight_end: float
    num_train_steps: int

    def __post_init__(self) -> None:
        """Check the weight.

        Raises:
            UserError: if it is negative.
        """
        if self.disc_weight_end < 0:
            raise UserError(f"DISC_WEIGHT_END is {self.disc_weight_end}: it must be at least 0")

    def factors(self, step: jax.Array | int) -> dict[str, jax.Array]:
        """Return the factors of loss weights at an update, counted from 0; a loss that is not listed has factor 1."""
        done = jnp.minimum(jnp.asarray(step, jnp.float32), self.num_train_steps) / self.num_train_steps
        return {"discriminator": 1.0 + (self.disc_weight_end - 1.0) * done}


CONSTANT_WEIGHTS = WeightSchedule(disc_weight_end=1.0, num_train_steps=1)
