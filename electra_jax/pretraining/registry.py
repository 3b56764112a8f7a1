"""Which model an objective trains, and which settings make no sense together."""

from collections.abc import Callable

from flax import linen as nn

from electra_jax.errors import UserError
from electra_jax.model.electra import (
    EMBEDDING_SHARING,
    AllTokensMlmModel,
    Bert,
    Electra,
    ReplaceMlmModel,
    TiedElectra,
    UniformElectra,
)
from electra_jax.model.encoder import EncoderConfig
from electra_jax.model.two_towers import TwoTowerElectra
from electra_jax.pretraining import corruption, flops
from electra_jax.pretraining.electric import Electric, TwoTowerDetection
from electra_jax.pretraining.masked_lm import AllTokensMlm, MaskedLanguageModel, ReplaceMlm
from electra_jax.pretraining.objective import Objective
from electra_jax.pretraining.replaced_token import DISCRIMINATE_AT, ReplacedTokenDetection

# (objective, kind of generator) -> the model; with two towers it takes both configurations and the sharing.
TWO_TOWERS: dict[tuple[type, str], Callable[..., nn.Module]] = {
    (ReplacedTokenDetection, "small"): Electra,
    (TwoTowerDetection, "two_tower"): TwoTowerElectra,
    (Electric, "two_tower"): TwoTowerElectra,
    (ReplaceMlm, "small"): ReplaceMlmModel,
    (AllTokensMlm, "small"): AllTokensMlmModel,
}
ONE_TOWER: dict[tuple[type, str], Callable[..., nn.Module]] = {
    (ReplacedTokenDetection, "tied"): TiedElectra,
    (ReplacedTokenDetection, "uniform"): UniformElectra,
    (MaskedLanguageModel, "none"): Bert,
}
GENERATOR_KINDS = ("small", "tied", "uniform", "two_tower", "none")


def make_model(
    objective: Objective,
    *,
    generator_kind: str,
    embedding_sharing: str,
    generator: EncoderConfig | None,
    discriminator: EncoderConfig,
) -> nn.Module:
    """The model that an objective trains.

    Args:
        objective: what is minimised.
        generator_kind: "small" (an encoder of its own), "tied" (the discriminator's), "uniform" (draws any token),
            "two_tower" (one encoder from each side) or "none".
        embedding_sharing: see `pretraining.Electra`.
        generator: sizes; None where the generator has no encoder of its own.
        discriminator: sizes of the encoder that is kept.
    """
    kind = (type(objective), generator_kind)
    if kind in TWO_TOWERS:
        return TWO_TOWERS[kind](generator, discriminator, embedding_sharing)
    return ONE_TOWER[kind](discriminator)


def check(
    objective: Objective,
    *,
    generator_kind: str,
    embedding_sharing: str,
    generator: EncoderConfig | None,
    discriminator: EncoderConfig,
) -> None:
    """Refuses settings that make no sense together; the arguments are those of `make_model`.

    Raises:
        UserError: names the settings.
    """
    name = type(objective).__name__
    for setting, value, valid in (
        ("generator_kind", generator_kind, GENERATOR_KINDS),
        ("embedding_sharing", embedding_sharing, EMBEDDING_SHARING),
        ("discriminate_at", getattr(objective, "discriminate_at", "all"), DISCRIMINATE_AT),
    ):
        if value not in valid:
            raise UserError(f"{setting} is {value!r}: it must be one of {', '.join(map(repr, valid))}")
    kind = (type(objective), generator_kind)
    if kind not in TWO_TOWERS and kind not in ONE_TOWER:
        valid = [repr(other) for owner, other in (*TWO_TOWERS, *ONE_TOWER) if owner is type(objective)]
        raise UserError(f"{name} cannot have generator_kind {generator_kind!r}: it takes {' or '.join(valid)}")
    if embedding_sharing != "es" and kind not in TWO_TOWERS:
        raise UserError(
            f"embedding_sharing {embedding_sharing!r} needs a generator with embeddings to share, which "
            f"generator_kind {generator_kind!r} has not: set embedding_sharing to 'es'"
        )
    if kind in TWO_TOWERS and embedding_sharing != "nes" and generator.embedding_size != discriminator.embedding_size:
        raise UserError(
            f"embedding_sharing {embedding_sharing!r} needs embeddings of one size, but the generator's have "
            f"{generator.embedding_size} and the discriminator's {discriminator.embedding_size}: set "
            "generator_embeddings to 'embedding_size', or embedding_sharing to 'nes'"
        )
    check_sampling(objective, generator_kind)
    check_weights(objective)


def check_sampling(objective: Objective, generator_kind: str) -> None:
    """Refuses a way of sampling that the objective or the generator has no use for.

    Raises:
        UserError: names the settings.
    """
    temperature = getattr(objective, "temperature", 1.0)
    if temperature <= 0:
        raise UserError(f"temperature is {temperature}: it must be above 0")
    sampler = getattr(objective, "sampler", corruption.SAMPLERS[0])
    if sampler not in corruption.SAMPLERS:
        raise UserError(f"sampler is {sampler!r}: it must be one of {', '.join(map(repr, corruption.SAMPLERS))}")
    if generator_kind == "uniform" and temperature != 1:
        raise UserError(f"temperature {temperature} changes nothing in a uniform generator: set it to 1")
    if isinstance(objective, Electric) and (temperature != 1 or objective.disallow_correct):
        raise UserError(
            "Electric contrasts the text with samples of the generator's own distribution: temperature must be 1 and "
            "disallow_correct False"
        )
    if getattr(objective, "disallow_correct", False) and getattr(objective, "discriminate_at", "all") == "masked":
        raise UserError(
            "discriminate_at 'masked' with disallow_correct leaves the discriminator nothing but replaced tokens: "
            "set one of them otherwise"
        )


def check_weights(objective: Objective) -> None:
    """Refuses weights that leave nothing to minimise.

    Raises:
        UserError: names them.
    """
    weights = objective.loss_weights
    if any(weight < 0 for weight in weights.values()) or not any(weights.values()):
        raise UserError(f"the loss weights {weights} must be at least 0, and one of them above 0")


def step_flops(
    objective: Objective,
    *,
    generator_kind: str,
    generator: EncoderConfig | None,
    discriminator: EncoderConfig,
    batch_size: int,
    sequence_length: int,
    max_predictions: int,
) -> int:
    """Matrix FLOPs of one training step, forward and backward (see `flops`), of any objective.

    Args:
        objective, generator_kind, generator, discriminator: see `make_model`.
        batch_size: rows of the global batch.
        sequence_length: tokens of a row.
        max_predictions: masked positions of a row.
    """
    all_tokens, masked_tokens = batch_size * sequence_length, batch_size * max_predictions
    main = flops.encoder_flops(discriminator, batch_size, sequence_length)
    forward = main
    if generator_kind == "small":
        forward += flops.encoder_flops(generator, batch_size, sequence_length)
        forward += flops.word_head_flops(generator, masked_tokens, width=generator.hidden_size)
    elif generator_kind == "two_tower":
        forward += 2 * flops.encoder_flops(generator, batch_size, sequence_length)
        forward += flops.word_head_flops(generator, all_tokens, width=2 * generator.hidden_size)
    elif generator_kind == "tied":
        forward += main + flops.word_head_flops(discriminator, masked_tokens, width=discriminator.hidden_size)
    if isinstance(objective, ReplacedTokenDetection | TwoTowerDetection):
        forward += flops.replaced_token_head_flops(discriminator, all_tokens)
    else:
        predicted = all_tokens if isinstance(objective, AllTokensMlm) else masked_tokens
        forward += flops.word_head_flops(discriminator, predicted, width=discriminator.hidden_size)
    return 3 * forward
