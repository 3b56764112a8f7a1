"""Map each objective to its model and names to rules, and check that settings make sense together."""

from collections.abc import Callable

from flax import linen as nn

from electra_jax.errors import UserError
from electra_jax.model.config import EncoderConfig
from electra_jax.model.electra import (
    EMBEDDING_SHARING,
    AllTokensMlmModel,
    Bert,
    CorrectingElectra,
    Electra,
    LeftToRightModel,
    ReplaceMlmModel,
    TiedElectra,
    UniformElectra,
)
from electra_jax.model.two_towers import TwoTowerElectra
from electra_jax.pretraining import corruption, original
from electra_jax.pretraining.correction import CorrectedDetection
from electra_jax.pretraining.electric import Electric, TwoTowerDetection
from electra_jax.pretraining.language_model import LanguageModel
from electra_jax.pretraining.mask_units import MASK_UNITS
from electra_jax.pretraining.masked_lm import AllTokensMlm, MaskedLanguageModel, ReplaceMlm
from electra_jax.pretraining.objective import Objective
from electra_jax.pretraining.replaced_token import DISCRIMINATE_AT, ReplacedTokenDetection
from electra_jax.pretraining.rules import STANDARD_RULES
from electra_jax.training.schedules import Schedule, check_schedule

# The rules that draw masks and report metrics, by name.
RULES = {rules.name: rules for rules in (STANDARD_RULES, original.RULES)}
# (objective, generator_kind) -> network. A network of two towers takes both configurations and embedding_sharing.
TWO_TOWERS: dict[tuple[type, str], Callable[..., nn.Module]] = {
    (ReplacedTokenDetection, "small"): Electra,
    (CorrectedDetection, "small"): CorrectingElectra,
    (TwoTowerDetection, "two_tower"): TwoTowerElectra,
    (Electric, "two_tower"): TwoTowerElectra,
    (ReplaceMlm, "small"): ReplaceMlmModel,
    (AllTokensMlm, "small"): AllTokensMlmModel,
}
ONE_TOWER: dict[tuple[type, str], Callable[..., nn.Module]] = {
    (ReplacedTokenDetection, "tied"): TiedElectra,
    (ReplacedTokenDetection, "uniform"): UniformElectra,
    (MaskedLanguageModel, "none"): Bert,
    (LanguageModel, "none"): LeftToRightModel,
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
    """Return the network that an objective trains.

    Args:
        objective: what is minimised.
        generator_kind: "small" (an encoder of its own), "tied" (the discriminator's), "uniform" (draws any token),
            "two_tower" (one encoder in each direction) or "none".
        embedding_sharing: see `model.electra.Electra`.
        generator: sizes of the generator; None where it has no encoder of its own.
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
    """Check that settings make sense together; the arguments are those of `make_model`.

    Raises:
        UserError: if a setting has an unknown value, or two settings contradict each other.
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
            f"generator_kind {generator_kind!r} does not have: set embedding_sharing to 'es'"
        )
    if kind in TWO_TOWERS and embedding_sharing != "nes" and generator.embedding_size != discriminator.embedding_size:
        raise UserError(
            f"embedding_sharing {embedding_sharing!r} needs embeddings of one size, but the generator's have "
            f"{generator.embedding_size} and the discriminator's {discriminator.embedding_size}: set "
            "generator_embeddings to 'embedding_size', or embedding_sharing to 'nes'"
        )
    check_sampling(objective, generator_kind)
    check_weights(objective)


def check_masking(masking: str, *, mask_unit: str, mask_prob: Schedule, rules: str) -> None:
    """Check that the settings of masking make sense together: see `config.pretraining.PretrainingRun`.

    Raises:
        UserError: if a setting has an unknown value, or two settings contradict each other.
    """
    for setting, value, valid in (
        ("MASKING", masking, ("device", "task")),
        ("MASK_UNIT", mask_unit, MASK_UNITS),
        ("rules", rules, tuple(RULES)),
    ):
        if value not in valid:
            names = " or ".join(map(repr, valid)) if setting == "MASKING" else f"one of {', '.join(map(repr, valid))}"
            raise UserError(f"{setting} is {value!r}: it must be {names}")
    if RULES[rules] != STANDARD_RULES and masking == "task":
        raise UserError(
            f"the masks of rules {rules!r} are drawn on the device: set MASKING to 'device', or rules to "
            f"{STANDARD_RULES.name!r}"
        )
    if masking == "task" and not isinstance(mask_prob, float):
        raise UserError(
            f"MASK_PROB is {mask_prob}, and the masks of a task have one rate: set MASKING to 'device', or MASK_PROB "
            "to a number"
        )
    if mask_unit != "token" and masking == "task":
        raise UserError(
            f"MASK_UNIT {mask_unit!r} is drawn on the device, and a task masks tokens: set MASKING to 'device', or "
            "MASK_UNIT to 'token'"
        )
    if mask_unit != "token" and RULES[rules] != STANDARD_RULES:
        raise UserError(
            f"rules {rules!r} mask tokens: set MASK_UNIT to 'token', which is {mask_unit!r}, or rules to "
            f"{STANDARD_RULES.name!r}"
        )


def check_sampling(objective: Objective, generator_kind: str) -> None:
    """Check that the settings of sampling suit the objective and the generator.

    Raises:
        UserError: if a setting is out of range, has an unknown value or does not suit them.
    """
    temperature = getattr(objective, "temperature", 1.0)
    check_schedule("temperature", temperature, valid=lambda value: value > 0, rule="must be above 0")
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
            "discriminate_at 'masked' with disallow_correct leaves the discriminator only replaced tokens: "
            "change one of them"
        )


def check_weights(objective: Objective) -> None:
    """Check that the weights leave something to minimise.

    Raises:
        UserError: if a weight is negative, or all weights are 0.
    """
    weights = objective.loss_weights
    if any(weight < 0 for weight in weights.values()) or not any(weights.values()):
        raise UserError(f"the loss weights {weights} must be at least 0, and one of them above 0")
