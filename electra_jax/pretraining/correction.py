"""Add to replaced-token detection the choice of the original token at each masked position among a few candidates.

This is the multi-word selection of TEAMS (Shen et al., 2021, Training ELECTRA Augmented with Multi-word Selection,
section 3). COCO-LM (Meng et al., 2021, section 3.2, corrective language modelling) chooses among the whole vocabulary
instead, at every position, as `masked_lm.AllTokensMlm` does.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from electra_jax.model.electra import CorrectingElectra
from electra_jax.model.layers import take_positions
from electra_jax.model.types import Corrupted, Loss, Masked, PyTree
from electra_jax.pretraining import corruption, losses
from electra_jax.pretraining.corruption import MaskingConfig
from electra_jax.pretraining.objective import Keys, Outputs, bind_towers, corrupt
from electra_jax.pretraining.replaced_token import ReplacedTokenDetection
from electra_jax.ranges import AT_LEAST_0, Range


@dataclasses.dataclass(frozen=True)
class CorrectedDetection(ReplacedTokenDetection):
    """Replaced-token detection with a third loss, at the masked positions: choosing the original among candidates.

    Attributes:
        gen_weight, disc_weight, temperature, disallow_correct, sampler, discriminate_at: see `ReplacedTokenDetection`.
        correction_weight: weight of the choice's loss.
        num_candidates: number of candidates, the original token included (5 in TEAMS).
    """

    correction_weight: Annotated[float, AT_LEAST_0]
    num_candidates: Annotated[int, Range(2)]

    @property
    def loss_weights(self) -> dict[str, float]:
        """The factor of each loss, by name."""
        return super().loss_weights | {"correction": self.correction_weight}

    def denominators(self, masked: Masked, masking: MaskingConfig) -> dict[str, jax.Array]:
        """Return the weight of each loss, see `Objective`."""
        return super().denominators(masked, masking) | {"correction": jnp.sum(masked.masked_weights)}

    def candidates(
        self, masked: Masked, corrupted: Corrupted, logits_BKV: jax.Array, keys_B: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return the candidates of each masked position, the original token first, and which of them count.

        The others are drawn from the generator's distribution, at its temperature, without the original token. If the
        token that was written is not the original, it is one of these draws: otherwise a discriminator that finds the
        token it reads among the candidates would know that it is the original. A repeated token does not count again.

        Args:
            masked: the generator's input.
            corrupted: what was written.
            logits_BKV: the generator's output.
            keys_B: one key per row, see `corruption.sample`; the written token was drawn with the key itself.

        Returns:
            int32 [B, K, P] and bool [B, K, P].
        """
        read_BK = take_positions(corrupted.tokens.input_ids, masked.masked_positions)
        others_BKV = corruption.forbid(logits_BKV, masked.masked_ids)
        drawn = [
            corruption.sample(
                jax.vmap(jax.random.fold_in, (0, None))(keys_B, number), others_BKV, self.temperature, self.sampler
            )
            for number in range(1, self.num_candidates)
        ]
        drawn[0] = jnp.where(read_BK == masked.masked_ids, drawn[0], read_BK)
        ids_BKP = jnp.stack([masked.masked_ids, *drawn], axis=-1)
        same_BKPP = ids_BKP[..., :, None] == ids_BKP[..., None, :]
        earlier_PP = jnp.tri(self.num_candidates, k=-1, dtype=bool)
        return ids_BKP, ~jnp.any(same_BKPP & earlier_PP[None, None], axis=-1)

    def losses(
        self,
        model: CorrectingElectra,
        params: PyTree,
        masked: Masked,
        keys: Keys,
        *,
        masking: MaskingConfig,
        deterministic: bool,
    ) -> tuple[dict[str, Loss], Outputs]:
        """Run both towers once: mask -> generate -> sample -> replace -> discriminate and choose."""
        generator, discriminator = bind_towers(model, params, keys, deterministic=deterministic)
        logits_BKV = generator(masked, method="generate")
        corrupted = corrupt(self, masked, logits_BKV, keys.sample, masking)
        candidates_BKP, counted_BKP = self.candidates(masked, corrupted, logits_BKV, keys.sample)
        logits_BL, choice_BKP = discriminator(
            corrupted.tokens, masked.masked_positions, candidates_BKP, method="correct"
        )
        choice_BKP = jnp.where(counted_BKP, choice_BKP, -jnp.inf)
        terms = {
            "generator": losses.masked_lm_loss(logits_BKV, masked.masked_ids, masked.masked_weights),
            "discriminator": losses.replaced_token_loss(
                logits_BL, corrupted.labels_BL, self.discriminated_positions(masked)
            ),
            # The original token is the first of the candidates.
            "correction": losses.masked_lm_loss(choice_BKP, jnp.zeros_like(masked.masked_ids), masked.masked_weights),
        }
        return terms, Outputs(corrupted, logits_BKV, logits_BL, correction_logits_BKP=choice_BKP)
