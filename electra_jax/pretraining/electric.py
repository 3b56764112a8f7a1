"""Define objectives with a two-tower generator, among them Electric, an energy-based cloze model (Clark et al., 2020b).

A two-tower generator gives q(token | all others) at every position without any [MASK]; see `model.two_towers`.
Electric's discriminator learns the energy of each token by noise contrast against it.
"""

import dataclasses
import math
from typing import Annotated, Self

import jax
import jax.numpy as jnp

from electra_jax.model.layers import take_positions
from electra_jax.model.two_towers import TwoTowerElectra
from electra_jax.model.types import Corrupted, Loss, Masked, PyTree, Tokens
from electra_jax.pretraining import corruption, losses
from electra_jax.pretraining.corruption import MaskingConfig
from electra_jax.pretraining.objective import Keys, Outputs, bind_towers, corrupt
from electra_jax.ranges import AT_LEAST_0
from electra_jax.training.schedules import Schedule, value_at


@dataclasses.dataclass(frozen=True)
class TwoTowerDetection:
    """Replaced-token detection with a two-tower generator, trained at every ordinary token of the original text.

    Attributes:
        gen_weight, disc_weight, temperature, disallow_correct, sampler: see `replaced_token.ReplacedTokenDetection`.
    """

    gen_weight: Annotated[float, AT_LEAST_0]
    disc_weight: Annotated[float, AT_LEAST_0]
    temperature: Schedule
    disallow_correct: bool
    sampler: str

    @property
    def loss_weights(self) -> dict[str, float]:
        """The factor of each loss, by name."""
        return {"generator": self.gen_weight, "discriminator": self.disc_weight}

    def at(self, share: jax.Array | float) -> Self:
        """Return the objective with the temperature that it has after a share of the steps."""
        return dataclasses.replace(self, temperature=value_at(self.temperature, share))

    def denominators(self, masked: Masked, masking: MaskingConfig) -> dict[str, jax.Array]:
        """Return the weight of each loss, see `Objective`."""
        original_BL, mask_BL = corruption.original_ids(masked), masked.tokens.attention_mask
        return {
            "generator": jnp.sum(corruption.candidates(original_BL, mask_BL, masking).astype(jnp.float32)),
            "discriminator": jnp.sum(mask_BL.astype(jnp.float32)),
        }

    def logits_and_labels(
        self, masked: Masked, corrupted: Corrupted, energies_BL: jax.Array, cloze_BLV: jax.Array, masking: MaskingConfig
    ) -> tuple[jax.Array, jax.Array]:
        """Return the discriminator's final logits, and 1 where a token was really replaced; float32 [B, L]."""
        del masked, cloze_BLV, masking
        return energies_BL, corrupted.labels_BL

    def losses(
        self,
        model: TwoTowerElectra,
        params: PyTree,
        masked: Masked,
        keys: Keys,
        *,
        masking: MaskingConfig,
        deterministic: bool,
    ) -> tuple[dict[str, Loss], Outputs]:
        """Run both towers once: cloze over the original text -> sample -> replace -> discriminate."""
        original = masked.tokens._replace(input_ids=corruption.original_ids(masked))
        generator, main = bind_towers(model, params, keys, deterministic=deterministic)
        cloze_BLV = generator(original, method="cloze")
        logits_BKV = take_positions(cloze_BLV, masked.masked_positions)
        corrupted = corrupt(self, masked, logits_BKV, keys.sample, masking)
        energies_BL = main(corrupted.tokens, method="discriminate")
        logits_BL, labels_BL = self.logits_and_labels(masked, corrupted, energies_BL, cloze_BLV, masking)
        corrupted = corrupted._replace(labels_BL=labels_BL)
        weights_BL = corruption.candidates(original.input_ids, original.attention_mask, masking).astype(jnp.float32)
        terms = {
            "generator": losses.masked_lm_loss(cloze_BLV, original.input_ids, weights_BL),
            "discriminator": losses.replaced_token_loss(logits_BL, labels_BL, original.attention_mask),
        }
        return terms, Outputs(corrupted, logits_BKV, logits_BL)


@dataclasses.dataclass(frozen=True)
class Electric(TwoTowerDetection):
    """Noise-contrastive estimation of the energy of each token in its context (Electric, section 2.2).

    The logit of "this is noise" is E(x)_t + log q(x_t | others) + log(p / (1 - p)), with p the share of noise. Every
    re-sampled position is noise, even if the sample is the original token. No gradient of this loss reaches the
    generator.
    """

    def logits_and_labels(
        self, masked: Masked, corrupted: Corrupted, energies_BL: jax.Array, cloze_BLV: jax.Array, masking: MaskingConfig
    ) -> tuple[jax.Array, jax.Array]:
        """Return the logit of "this is noise", and 1 at positions that are noise; float32 [B, L]."""
        log_q_BLV = jax.nn.log_softmax(jax.lax.stop_gradient(cloze_BLV), axis=-1)
        log_q_BL = jnp.take_along_axis(log_q_BLV, corrupted.tokens.input_ids[..., None], axis=-1)[..., 0]
        odds = masking.rate / (1 - masking.rate)
        log_odds = jnp.log(odds) if isinstance(odds, jax.Array) else math.log(odds)
        return energies_BL + log_q_BL + log_odds, corruption.selected(masked)


def pseudo_log_likelihoods(
    energies_BL: jax.Array, tokens: Tokens, special: corruption.SpecialIds
) -> tuple[jax.Array, jax.Array]:
    """Score sentences by one forward pass of Electric's discriminator (Electric, section 3.3).

    A token's log p(x_t | others) is -E(x)_t up to a constant that training keeps near zero.

    Args:
        energies_BL: logits of the discriminator on the unmasked `tokens`.
        tokens: the sequences.
        special: ids that are not scored.

    Returns:
        The score of each row, float32 [B], and of each token, float32 [B, L], 0 where it is not scored.
    """
    scored_BL = corruption.candidates(tokens.input_ids, tokens.attention_mask, special)
    scores_BL = jnp.where(scored_BL, -energies_BL, 0.0)
    return jnp.sum(scores_BL, axis=-1), scores_BL
