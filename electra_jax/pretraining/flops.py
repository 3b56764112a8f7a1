"""Counted FLOPs of a step: matrix products only, a multiply-add is two, backward is twice forward.

The paper's own counts, which differ, are in `published_flops`; other objectives than ELECTRA's in `variants`.
"""

from electra_jax.model.encoder import EncoderConfig


def encoder_flops(config: EncoderConfig, batch_size: int, sequence_length: int) -> int:
    """Forward matrix FLOPs of an encoder over [B, L], its embedding projection included."""
    width, inner = config.hidden_size, config.intermediate_size
    kernels = 4 * width * width + 2 * width * inner
    attention = 2 * sequence_length * width
    projection = config.embedding_size * width if config.embedding_size != width else 0
    return 2 * batch_size * sequence_length * (config.num_hidden_layers * (kernels + attention) + projection)


def word_head_flops(config: EncoderConfig, num_tokens: int, *, width: int) -> int:
    """Forward matrix FLOPs of predicting the words of so many tokens from hidden states of this width."""
    return 2 * num_tokens * config.embedding_size * (width + config.vocab_size)


def replaced_token_head_flops(config: EncoderConfig, num_tokens: int) -> int:
    """Forward matrix FLOPs of the discriminator's head."""
    return 2 * num_tokens * (config.hidden_size**2 + config.hidden_size)


def pretrain_step_flops(
    discriminator: EncoderConfig,
    generator: EncoderConfig,
    *,
    batch_size: int,
    sequence_length: int,
    max_predictions: int,
) -> int:
    """Matrix FLOPs of one replaced-token-detection step, forward and backward, both towers and their heads."""
    forward = (
        encoder_flops(generator, batch_size, sequence_length)
        + word_head_flops(generator, batch_size * max_predictions, width=generator.hidden_size)
        + encoder_flops(discriminator, batch_size, sequence_length)
        + replaced_token_head_flops(discriminator, batch_size * sequence_length)
    )
    return 3 * forward
