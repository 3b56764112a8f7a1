"""Transform hidden states before a head's last product, as BERT's `transform` and ModernBERT's prediction head do."""

import jax
import jax.numpy as jnp

from electra_jax.model.config import EncoderConfig
from electra_jax.model.layers import LayerNorm, Linear, gelu


def transformed(hidden: jax.Array, size: int, config: EncoderConfig) -> jax.Array:
    """Apply dense, GELU and LayerNorm to hidden states [..., D]; return [..., size].

    Call it in a compact method: the parameters `dense` and `layer_norm` belong to that method's module.
    """
    dtype = jnp.dtype(config.dtype)
    dense = Linear(size, ("embed", None), config.output_initializer, dtype, config.classifier_bias, name="dense")
    norm = LayerNorm(config.layer_norm_eps, "embed", dtype, config.norm_bias, name="layer_norm")
    return norm(gelu(dense(hidden)))
