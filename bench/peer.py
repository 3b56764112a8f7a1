"""Build a PyTorch step to compare with: the two ELECTRA pre-training models of transformers, trained together.

The step follows the recipe of `models.recipe`: masks drawn on the device, sampled replacements, tied embeddings,
dropout, the loss 1 x generator + 50 x discriminator, clipping, Adam with decoupled weight decay. Needs PyTorch and
transformers.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

from bench import models
from electra_jax.model.config import EncoderConfig

IGNORED = -100


class Pair(nn.Module):
    """Hold both models; `forward` is the whole objective, so that one compilation covers it.

    The generator's head runs at all positions, as in transformers, or only at the masked ones (`gathered`).
    """

    def __init__(self, recipe: models.Recipe, *, gathered: bool) -> None:
        """Initialize random weights; the generator shares the discriminator's embeddings."""
        super().__init__()
        self.masking, self.objective, self.gathered = recipe.masking, recipe.objective, gathered
        self.discriminator = ElectraForPreTraining(peer_config(recipe.model.discriminator_config))
        self.generator = ElectraForMaskedLM(peer_config(recipe.model.generator_config))
        self.generator.electra.embeddings = self.discriminator.electra.embeddings
        self.generator.generator_lm_head.weight = self.discriminator.electra.embeddings.word_embeddings.weight

    def forward(self, ids_BL: Tensor, types_BL: Tensor) -> Tensor:
        """Return the loss of a batch of ids and segment ids, [B, L] each, without padding."""
        positions_BK, shown_BK = self.draw_masks(ids_BL)
        originals_BK = ids_BL.gather(1, positions_BK)
        masked_BL = ids_BL.scatter(1, positions_BK, torch.where(shown_BK, self.masking.mask_id, originals_BK))
        logits_BKV, generator_loss = self.generate(masked_BL, types_BL, positions_BK, originals_BK)
        with torch.no_grad():
            probabilities_NV = torch.softmax(logits_BKV.detach().float().flatten(0, 1), dim=-1)
            sampled_BK = torch.multinomial(probabilities_NV, 1).view_as(originals_BK)
            corrupted_BL = ids_BL.scatter(1, positions_BK, sampled_BK)
        labels_BL = (corrupted_BL != ids_BL).long()
        read = {"token_type_ids": types_BL, "attention_mask": torch.ones_like(ids_BL)}
        discriminator_loss = self.discriminator(input_ids=corrupted_BL, labels=labels_BL, **read).loss
        return self.objective.gen_weight * generator_loss + self.objective.disc_weight * discriminator_loss

    def draw_masks(self, ids_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Draw K distinct positions of ordinary tokens in each row, and whether each of them shows [MASK]."""
        special_BL = (ids_BL == self.masking.cls_id) | (ids_BL == self.masking.sep_id)
        order_BL = torch.rand(ids_BL.shape, device=ids_BL.device).masked_fill(special_BL, -1.0)
        positions_BK = order_BL.topk(self.masking.max_predictions(ids_BL.shape[1])).indices
        return positions_BK, torch.rand(positions_BK.shape, device=ids_BL.device) < self.masking.mask_token_prob

    def generate(
        self, masked_BL: Tensor, types_BL: Tensor, positions_BK: Tensor, originals_BK: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the generator's logits at the masked positions, and its loss."""
        read = {"token_type_ids": types_BL, "attention_mask": torch.ones_like(masked_BL)}

        def at_masks(values_BLD: Tensor) -> Tensor:
            return values_BLD.gather(1, positions_BK[..., None].expand(-1, -1, values_BLD.shape[-1]))

        if self.gathered:
            hidden_BKD = at_masks(self.generator.electra(input_ids=masked_BL, **read)[0])
            logits_BKV = self.generator.generator_lm_head(self.generator.generator_predictions(hidden_BKD))
            return logits_BKV, nn.functional.cross_entropy(logits_BKV.flatten(0, 1).float(), originals_BK.flatten())
        labels_BL = torch.full_like(masked_BL, IGNORED).scatter(1, positions_BK, originals_BK)
        output = self.generator(input_ids=masked_BL, labels=labels_BL, **read)
        return at_masks(output.logits), output.loss


def peer_config(config: EncoderConfig) -> ElectraConfig:
    """Return the configuration of transformers with the same sizes."""
    return ElectraConfig(
        vocab_size=config.vocab_size,
        embedding_size=config.embedding_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        hidden_dropout_prob=config.hidden_dropout_prob,
        attention_probs_dropout_prob=config.attention_probs_dropout_prob,
        max_position_embeddings=config.max_position_embeddings,
        type_vocab_size=config.type_vocab_size,
        initializer_range=config.initializer_range,
        layer_norm_eps=config.layer_norm_eps,
    )


def make_step(
    recipe: models.Recipe, device: torch.device, *, gathered: bool, compiled: bool, bfloat16: bool
) -> Callable[[Tensor, Tensor], float]:
    """Return a function that trains one step on ids and segment ids [B, L], waits for it and returns the loss."""
    torch.manual_seed(0)
    pair = Pair(recipe, gathered=gathered).to(device).train()
    parameters = list(pair.parameters())
    optimizer = make_optimizer(pair, recipe)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, step / recipe.optimizer.num_warmup_steps)
    )
    loss_of = torch.compile(pair) if compiled else pair

    def precision() -> AbstractContextManager[None]:
        return torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)

    def step(ids_BL: Tensor, types_BL: Tensor) -> float:
        with precision():
            loss = loss_of(ids_BL, types_BL)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, recipe.optimizer.clip_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        # Reading the loss alone would not wait for the update.
        if device.type == "cuda":
            torch.cuda.synchronize()
        return loss.item()

    return step


def make_optimizer(pair: Pair, recipe: models.Recipe) -> torch.optim.Optimizer:
    """Return PyTorch's fastest Adam, with weight decay for everything but biases and layer norms."""
    settings = recipe.optimizer
    groups: Iterator[tuple[bool, nn.Parameter]] = (
        ("bias" not in name and "LayerNorm" not in name, parameter) for name, parameter in pair.named_parameters()
    )
    decayed, others = [], []
    for decays, parameter in groups:
        (decayed if decays else others).append(parameter)
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings.weight_decay_rate}, {"params": others, "weight_decay": 0.0}],
        lr=settings.learning_rate,
        betas=(settings.beta_1, settings.beta_2),
        eps=settings.epsilon,
        fused=True,
    )
