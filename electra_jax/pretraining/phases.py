"""Divide pre-training into phases: train the generator alone first, or freeze a generator that is already trained.

The phase of an update follows from its number alone, so that a run can be resumed in any phase.
"""

import dataclasses
from collections.abc import Collection, Iterable
from typing import Annotated, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from electra_jax import ranges
from electra_jax.errors import UserError
from electra_jax.model.config import EncoderConfig
from electra_jax.model.types import Loss, Masked, PyTree
from electra_jax.pretraining.corruption import MaskingConfig
from electra_jax.pretraining.objective import Keys, Objective, Outputs
from electra_jax.ranges import UNDER_1
from electra_jax.training.state import Batch, Sums, TrainState

# The trees of parameters that each loss trains, by `embedding_sharing`: see `model.electra.Electra`.
GENERATOR = {"es": ("embeddings", "generator"), "gdes": ("embeddings", "generator"), "nes": ("generator",)}
MAIN = {"es": ("embeddings", "discriminator"), "gdes": ("discriminator",), "nes": ("embeddings", "discriminator")}
# Kinds of generator that can be trained separately from the discriminator.
APART = ("small", "two_tower")
# Fields in which two encoders with the same parameters may differ.
_NOT_IN_PARAMETERS = ("scan_unroll", "remat_policy")


@dataclasses.dataclass(frozen=True)
class PhasesConfig:
    """Settings of when the generator and the discriminator are trained.

    Attributes:
        generator_first: share of the run's FLOPs in which the generator is trained alone, from the first step on; 0 as
            published.
        copy_generator: whether the discriminator's encoder and embeddings then start from the generator's, as in the
            two-stage training of ELECTRA (section 3.2), which may not learn at all without it.
        freeze_generator: whether the generator is frozen after that. One that is frozen from the beginning has no
            optimizer state (Fast-ELECTRA: Dong et al., 2023).
    """

    generator_first: Annotated[float, UNDER_1]
    copy_generator: bool
    freeze_generator: bool

    def __post_init__(self) -> None:
        """Check the share.

        Raises:
            UserError: if the share is not in [0, 1), or a copy is asked for without a generator that is trained first.
        """
        ranges.check(self)
        if self.copy_generator and not self.generator_first:
            raise UserError(
                "COPY_GENERATOR copies a generator that has learned alone, and GENERATOR_FIRST is 0: set it to the "
                "share of the FLOPs in which it does, or name a run of gin/objectives/mlm.gin as INIT_FROM"
            )

    @property
    def ready(self) -> bool:
        """Whether the generator is never trained."""
        return self.freeze_generator and not self.generator_first


PUBLISHED = PhasesConfig(generator_first=0.0, copy_generator=False, freeze_generator=False)


def generator_steps(share: float, stages: Iterable[tuple[int, int, int]]) -> int:
    """Return how many updates train the generator alone, so that their FLOPs are nearest to a share of the run's.

    Args:
        share: share of the FLOPs, above 0.
        stages: for each part of the run, its number of updates, the FLOPs of an update that trains the generator alone,
            and the FLOPs of an update after those.
    """
    stages, steps = list(stages), 0
    # Each update of the generator alone takes the place of a later one.
    left = sum(share * count * after for count, _, after in stages)
    for count, alone, after in stages:
        gained = (1 - share) * alone + share * after
        taken = min(count, round(left / gained))
        steps, left = steps + taken, left - taken * gained
    return max(1, steps)


def check(
    config: PhasesConfig,
    objective: Objective,
    *,
    generator_kind: str,
    embedding_sharing: str,
    generator: EncoderConfig | None,
    discriminator: EncoderConfig,
    own_rate: bool,
    init_from: str | None,
) -> None:
    """Check that the phases make sense with a run.

    Args:
        config: the phases.
        objective, generator_kind, embedding_sharing, generator, discriminator: see `registry.make_model`.
        own_rate: whether the generator has a learning rate or a clipping of its own.
        init_from: the model directory that a generator frozen from the beginning comes from.

    Raises:
        UserError: if there is no generator to train or freeze apart from the discriminator, if its sizes do not allow
            a copy, if the discriminator would train a frozen generator's embeddings, if a generator frozen from the
            beginning has no source, if `own_rate` is set without a generator that is trained, or if a generator that
            is trained alone has the weight 0.
    """
    if own_rate and (generator_kind in ("none", "uniform") or config.ready):
        what = "FREEZE_GENERATOR is True" if config.ready else f"generator_kind is {generator_kind!r}"
        raise UserError(
            "GENERATOR_LEARNING_RATE and GENERATOR_CLIP_NORM are for a generator that is trained, and this run's "
            f"{what}: set both to None"
        )
    if config.ready and init_from is None:
        raise UserError(
            "FREEZE_GENERATOR needs a generator that is ready, and INIT_FROM is None: name a model directory that has "
            "one, or set GENERATOR_FIRST above 0"
        )
    asked = [
        name
        for name, value in (
            ("GENERATOR_FIRST", config.generator_first),
            ("FREEZE_GENERATOR", config.freeze_generator),
        )
        if value
    ]
    if asked and generator_kind not in APART:
        raise UserError(
            f"{asked[0]} needs a generator with an encoder of its own, and generator_kind is {generator_kind!r}: take "
            "an objective whose generator_kind is 'small' or 'two_tower'"
        )
    if config.generator_first and not objective.loss_weights["generator"]:
        raise UserError("GENERATOR_FIRST trains the generator alone, and its weight is 0: raise gen_weight")
    if config.freeze_generator and embedding_sharing == "es":
        raise UserError(
            "FREEZE_GENERATOR keeps the generator as it is, and with embedding_sharing 'es' the discriminator would "
            "train its embeddings: set embedding_sharing to 'gdes' or 'nes'"
        )
    if config.copy_generator:
        check_copy(generator_kind, generator, discriminator)


def check_copy(generator_kind: str, generator: EncoderConfig, discriminator: EncoderConfig) -> None:
    """Check that a generator's encoder can become the discriminator's.

    Raises:
        UserError: if the generator has two encoders, or one encoder of other sizes.
    """
    different = [
        f"{field.name} {getattr(generator, field.name)} there, {getattr(discriminator, field.name)} here"
        for field in dataclasses.fields(EncoderConfig)
        if field.name not in _NOT_IN_PARAMETERS and getattr(generator, field.name) != getattr(discriminator, field.name)
    ]
    if generator_kind == "two_tower" or different:
        raise UserError(
            "COPY_GENERATOR needs one encoder of the discriminator's sizes in the generator "
            f"({'; '.join(different) or 'this one has two'}): set generator_width_fraction and "
            "generator_depth_fraction to 1.0, or COPY_GENERATOR to False"
        )


@dataclasses.dataclass(frozen=True)
class Phases:
    """Decide which parameters an update trains.

    Attributes:
        config: the settings.
        generator_steps: updates of the generator alone.
        warmup_steps: length of the linear warm-up of the discriminator's updates after those.
        embedding_sharing: see `model.electra.Electra`.
    """

    config: PhasesConfig
    generator_steps: int
    warmup_steps: float
    embedding_sharing: str

    @property
    def trained_after(self) -> tuple[str, ...] | None:
        """The trees of parameters that are trained after the generator's own steps; None for all."""
        return MAIN[self.embedding_sharing] if self.config.freeze_generator else None

    def rates(self, step: jax.Array) -> dict[str, jax.Array]:
        """Return the learning-rate factors of trees of parameters, by name; a tree that is not listed has factor 1.

        The discriminator has a warm-up of its own, because its moments are empty at its first update.
        """
        if not self.generator_steps or not self.warmup_steps:
            return {}
        since = jnp.asarray(step - self.generator_steps, jnp.float32)
        return {"discriminator": jnp.clip(since / self.warmup_steps, 0.0, 1.0)}


@dataclasses.dataclass(frozen=True)
class GeneratorAlone:
    """The generator's part of an objective, without the discriminator's, which the compiler drops as unused."""

    objective: Objective

    @property
    def loss_weights(self) -> dict[str, float]:
        """The factor of each loss, by name."""
        return {"generator": self.objective.loss_weights["generator"]}

    def at(self, share: jax.Array | float) -> "GeneratorAlone":
        """Return the objective with the values that its schedules have after a share of the steps."""
        return GeneratorAlone(self.objective.at(share))

    def denominators(self, masked: Masked, masking: MaskingConfig) -> dict[str, jax.Array]:
        """Return the weight of the loss, see `Objective`."""
        return {"generator": self.objective.denominators(masked, masking)["generator"]}

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
        """Return the generator's loss, its logits and the corrupted text."""
        terms, outputs = self.objective.losses(
            model, params, masked, keys, masking=masking, deterministic=deterministic
        )
        written = Outputs(outputs.corrupted, outputs.generator_logits_BKV)
        return {"generator": terms["generator"]}, written


class Step(Protocol):
    """One update, such as `steps.pretrain_step` with everything bound that does not depend on the phase."""

    def __call__(
        self,
        state: TrainState,
        batch: Batch,
        *,
        objective: Objective,
        trained: Collection[str] | None,
        rates: dict[str, jax.Array],
    ) -> tuple[TrainState, Sums]:
        """Return the state after the update, and the batch's metric sums."""


def update(
    state: TrainState, batch: Batch, *, phases: Phases, objective: Objective, step: Step
) -> tuple[TrainState, Sums]:
    """Update the state as its phase asks; return it and the batch's metric sums, 0 for what was not computed."""

    def after(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        rates = phases.rates(state.step)
        return step(state, batch, objective=objective, trained=phases.trained_after, rates=rates)

    if not phases.generator_steps:
        return after(state, batch)

    def alone(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        trained = GENERATOR[phases.embedding_sharing]
        new, sums = step(state, batch, objective=GeneratorAlone(objective), trained=trained, rates={})
        if phases.config.copy_generator:
            last = new.step == phases.generator_steps
            new = new._replace(params=jax.lax.cond(last, start_discriminator, lambda params: params, new.params))
        of_both = jax.eval_shape(after, state, batch)[1]
        zeros = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in of_both.items()}
        return new, zeros | sums

    return jax.lax.cond(state.step < phases.generator_steps, alone, after, state, batch)


def start_discriminator(params: PyTree) -> PyTree:
    """Return the parameters with the generator's encoder and embeddings copied to the discriminator."""
    generator, main = params["generator"], params["discriminator"]
    params = params | {"discriminator": main | {"encoder": generator["encoder"]}}
    if "embeddings" in generator:
        params["embeddings"] = generator["embeddings"]
    if "embeddings" in main:
        # The discriminator's tables are added to the generator's, and are still zero.
        layer_norm = params["embeddings"]["layer_norm"]
        params["discriminator"]["embeddings"] = main["embeddings"] | {"layer_norm": layer_norm}
    return params


def of_main(params: PyTree, embedding_sharing: str) -> PyTree:
    """Return the trees of parameters that the main tower's loss trains."""
    return {name: params[name] for name in MAIN[embedding_sharing]}


def for_main(rule: optax.GradientTransformation, embedding_sharing: str) -> optax.GradientTransformation:
    """Return an update rule that updates, and keeps a state for, only what the main tower's loss trains."""

    def init(params: PyTree) -> optax.OptState:
        return rule.init(of_main(params, embedding_sharing))

    def update(grads: PyTree, state: optax.OptState, params: PyTree) -> tuple[PyTree, optax.OptState]:
        return rule.update(of_main(grads, embedding_sharing), state, of_main(params, embedding_sharing))

    return optax.GradientTransformation(init, update)
