"""Define the network of a fine-tuned model: the encoder that pre-training keeps, under a task's head."""

from typing import Any

import jax
from flax import linen as nn

from electra_jax.model.config import EncoderConfig
from electra_jax.model.embeddings import Embeddings
from electra_jax.model.encoder import Encoder
from electra_jax.model.heads import HeadConfig, make_head
from electra_jax.model.precision import evaluation_config, evaluation_precision
from electra_jax.model.towers import Discriminator, positions_in_example, visible
from electra_jax.model.types import PyTree, Tokens


class Trunk(nn.Module):
    """Hold the encoder under the path that it has in the parameters of pre-training."""

    config: EncoderConfig

    def setup(self) -> None:
        """Create the encoder."""
        self.encoder = Encoder(self.config)

    def __call__(
        self,
        embedded_BLE: jax.Array,
        attention_mask: jax.Array,
        position_ids_BL: jax.Array | None,
        *,
        deterministic: bool,
    ) -> jax.Array:
        """Return the last hidden states, [B, L, D]; see `Encoder`."""
        return self.encoder(embedded_BLE, attention_mask, position_ids_BL, deterministic=deterministic)


class FinetunedModel(nn.Module):
    """Compute a head over the discriminator's encoder; its parameters have the paths of a model directory."""

    config: EncoderConfig
    head_config: HeadConfig

    def setup(self) -> None:
        """Create the three parts."""
        self.embeddings = Embeddings(self.config)
        self.discriminator = Trunk(self.config)
        self.head = make_head(self.head_config, self.config)

    def __call__(self, tokens: Tokens, *, deterministic: bool, **targets: jax.Array) -> Any:
        """Return the head's float32 logits; `targets` are what a head reads in training: see `heads`."""
        positions_BL = positions_in_example(tokens)
        embedded_BLE = self.embeddings(
            tokens.input_ids, tokens.token_type_ids, positions_BL, deterministic=deterministic
        )
        hidden_BLD = self.discriminator(embedded_BLE, visible(tokens), positions_BL, deterministic=deterministic)
        return self.head(hidden_BLD, tokens, deterministic=deterministic, **targets)


class PromptedModel(nn.Module):
    """Compute the replaced-token head that pre-training leaves on the discriminator, which scores prompts."""

    config: EncoderConfig

    def setup(self) -> None:
        """Create the two parts."""
        self.embeddings = Embeddings(self.config)
        self.discriminator = Discriminator(self.config, self.embeddings)

    def __call__(self, tokens: Tokens, *, deterministic: bool) -> jax.Array:
        """Return float32 logits [B, L], positive where a token looks replaced."""
        return self.discriminator(tokens, deterministic=deterministic)


Trainable = FinetunedModel | PromptedModel


def head_outputs(params: PyTree, tokens: Tokens, *, model: Trainable) -> Any:
    """Return the head's outputs without dropout, at the precision of evaluation: an array, or a dict of arrays."""
    exact = model.clone(config=evaluation_config(model.config))
    with evaluation_precision():
        return exact.apply({"params": params}, tokens, deterministic=True)
