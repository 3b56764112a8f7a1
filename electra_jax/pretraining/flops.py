"""Count the FLOPs of a training step: matrix products only, two per multiply-add, backward twice as many as forward."""

from electra_jax.model import windows
from electra_jax.model.config import FULL, EncoderConfig
from electra_jax.pretraining.correction import CorrectedDetection
from electra_jax.pretraining.electric import TwoTowerDetection
from electra_jax.pretraining.language_model import LanguageModel
from electra_jax.pretraining.masked_lm import AllTokensMlm
from electra_jax.pretraining.objective import Objective
from electra_jax.pretraining.replaced_token import ReplacedTokenDetection


def step_flops(
    objective: Objective,
    *,
    generator_kind: str,
    generator: EncoderConfig | None,
    discriminator: EncoderConfig,
    batch_size: int,
    sequence_length: int,
    max_predictions: int,
    trained: str = "both",
) -> int:
    """Return the matrix FLOPs of one training step, forward and backward.

    Args:
        objective, generator_kind, generator, discriminator: see `registry.make_model`.
        batch_size: rows of the global batch.
        sequence_length: tokens of a row.
        max_predictions: masked positions of a row.
        trained: "both" towers; the "generator" alone, without the discriminator's forward pass; or the "main" tower
            alone, with the generator's forward pass.
    """
    all_tokens, masked_tokens = batch_size * sequence_length, batch_size * max_predictions
    main = encoder_flops(discriminator, batch_size, sequence_length)
    written = 0
    if generator_kind == "small":
        written = encoder_flops(generator, batch_size, sequence_length)
        written += word_head_flops(generator, masked_tokens, width=generator.hidden_size)
    elif generator_kind == "two_tower":
        written = 2 * encoder_flops(generator, batch_size, sequence_length)
        written += word_head_flops(generator, all_tokens, width=2 * generator.hidden_size)
    elif generator_kind == "tied":
        written = main + word_head_flops(discriminator, masked_tokens, width=discriminator.hidden_size)
    # Electric is a kind of TwoTowerDetection.
    if isinstance(objective, ReplacedTokenDetection | TwoTowerDetection):
        main += replaced_token_head_flops(discriminator, all_tokens)
        if isinstance(objective, CorrectedDetection):
            main += correction_head_flops(discriminator, masked_tokens, objective.num_candidates)
    else:
        predicted = all_tokens if isinstance(objective, AllTokensMlm | LanguageModel) else masked_tokens
        main += word_head_flops(discriminator, predicted, width=discriminator.hidden_size)
    return {"both": 3 * (written + main), "generator": 3 * written, "main": written + 3 * main}[trained]


def encoder_flops(config: EncoderConfig, batch_size: int, sequence_length: int) -> int:
    """Return the forward matrix FLOPs of an encoder over [B, L], its embedding projection included.

    A query of a sliding layer is multiplied with the keys of three blocks (see `windows`), or of the whole short row.
    """
    width, inner = config.hidden_size, config.intermediate_size
    kernels = 4 * width * width + (3 if config.gated_mlp else 2) * width * inner
    window = windows.num_attended(sequence_length, config.local_attention // 2)
    attended = sum(sequence_length if kind == FULL else window for kind in config.kinds)
    projection = config.embedding_size * width if config.embedding_size != width else 0
    return 2 * batch_size * sequence_length * (config.num_hidden_layers * kernels + 2 * attended * width + projection)


def word_head_flops(config: EncoderConfig, num_tokens: int, *, width: int) -> int:
    """Return the forward matrix FLOPs of predicting `num_tokens` words from hidden states of size `width`."""
    return 2 * num_tokens * config.embedding_size * (width + config.padded_vocab_size)


def replaced_token_head_flops(config: EncoderConfig, num_tokens: int) -> int:
    """Return the forward matrix FLOPs of the discriminator's head."""
    return 2 * num_tokens * (config.hidden_size**2 + config.hidden_size)


def correction_head_flops(config: EncoderConfig, num_tokens: int, num_candidates: int) -> int:
    """Return the forward matrix FLOPs of choosing among candidates at `num_tokens` positions; lookups cost nothing."""
    return 2 * num_tokens * config.embedding_size * (config.hidden_size + num_candidates)
