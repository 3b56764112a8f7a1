"""Build the optimizer: clipping, an update rule, decoupled weight decay, and learning rates over the steps."""

import dataclasses
import re
from typing import Annotated

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from electra_jax import ranges
from electra_jax.errors import UserError
from electra_jax.model.types import PyTree
from electra_jax.ranges import AT_LEAST_0, AT_LEAST_1, POSITIVE, POSITIVE_SHARE, UNDER_1
from electra_jax.training import update_rules

RULES = ("bert_adam", "adamw", "stable_adamw", "muon")
# A regular expression that matches the beginning of the paths of a generator's parameters.
GENERATOR = "generator/"


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Settings of `make_optimizer`, with the release's names.

    Attributes:
        rule: "bert_adam" as published, without bias correction; "adamw", with it; "stable_adamw", which also limits
            each parameter's update; or "muon", for hidden matrices, with Adam for all others: see `update_rules`.
        learning_rate: base rate, which warm-up and decay multiply.
        generator_learning_rate: base rate of the generator's parameters; None for `learning_rate`.
        num_warmup_steps: length of the linear warm-up, not necessarily a whole number; 0 for none.
        num_train_steps: step at which the decay reaches zero.
        lr_decay_power: exponent of the decay (1 is linear).
        weight_decay_rate: decoupled decay, multiplied by the learning rate.
        no_decay: regular expression; parameters whose path it matches are not decayed.
        beta_1, beta_2, epsilon: Adam's; epsilon is added outside the square root.
        muon_momentum, muon_update_rms: see `update_rules.scale_by_muon_and_adam`; without effect in other rules.
        clip_norm: largest global norm of the gradient; None for no limit.
        generator_clip_norm: largest norm of the gradient of the generator's parameters, which then do not count for
            `clip_norm`; None if all parameters are clipped together.
        layerwise_lr_decay: factor from each layer to the one below it, in (0, 1]; 1 for one learning rate.
        lr_decay_share: share of the steps, at the end, over which the rate falls; 1 as published. Below 1 the rate is
            constant between warm-up and decay ("warm-up-stable-decay": Hu et al., 2024, MiniCPM, section 4).
        top_layer_exponent: exponent of `layerwise_lr_decay` for the top layer: see `layerwise_multipliers`.
    """

    rule: str
    learning_rate: Annotated[float, AT_LEAST_0]
    generator_learning_rate: Annotated[float | None, AT_LEAST_0]
    num_warmup_steps: Annotated[float, AT_LEAST_0]
    num_train_steps: Annotated[int, AT_LEAST_1]
    lr_decay_power: Annotated[float, AT_LEAST_0]
    weight_decay_rate: Annotated[float, AT_LEAST_0]
    no_decay: str
    beta_1: Annotated[float, UNDER_1]
    beta_2: Annotated[float, UNDER_1]
    epsilon: Annotated[float, POSITIVE]
    muon_momentum: Annotated[float, UNDER_1]
    muon_update_rms: Annotated[float, AT_LEAST_0]
    clip_norm: Annotated[float | None, POSITIVE]
    generator_clip_norm: Annotated[float | None, POSITIVE]
    layerwise_lr_decay: Annotated[float, POSITIVE_SHARE]
    top_layer_exponent: Annotated[int, AT_LEAST_0]
    lr_decay_share: Annotated[float, POSITIVE_SHARE]

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UserError: if a setting is out of range, `rule` is unknown, `no_decay` is not a regular expression, or the
                generator has a learning rate and the base rate is 0.
        """
        ranges.check(self)
        if self.rule not in RULES:
            raise UserError(f"OptimizerConfig.rule is {self.rule!r}: it must be one of {', '.join(RULES)}")
        try:
            re.compile(self.no_decay)
        except re.error as error:
            raise UserError(
                f"OptimizerConfig.no_decay is {self.no_decay!r}, which is no regular expression ({error})"
            ) from error
        if self.generator_learning_rate is not None and self.learning_rate <= 0:
            raise UserError(
                f"LEARNING_RATE is {self.learning_rate} and GENERATOR_LEARNING_RATE {self.generator_learning_rate}: "
                "one is a multiple of the other, set a positive LEARNING_RATE"
            )


def learning_rate(config: OptimizerConfig, step: jax.Array | int) -> jax.Array:
    """Return base x min(1, (1 - min(k, N) / N) / S)^p x min(1, k / W) at update k, counted from 0.

    With `lr_decay_share` S = 1 this is the release's schedule: the decay runs during warm-up too. With warm-up, the
    first update has learning rate 0: it only fills the moments.
    """
    count = jnp.asarray(step, jnp.float32)
    rest = 1.0 - jnp.minimum(count, config.num_train_steps) / config.num_train_steps
    if config.lr_decay_share < 1:
        rest = jnp.minimum(1.0, rest / config.lr_decay_share)
    warmup = jnp.minimum(1.0, count / config.num_warmup_steps) if config.num_warmup_steps else 1.0
    return config.learning_rate * rest**config.lr_decay_power * warmup


def decayed(params: PyTree, no_decay: str) -> PyTree:
    """Return True for each parameter that weight decay applies to."""
    return update_rules.by_path(lambda path: re.search(no_decay, path) is None, params)


# Groups of layer-wise learning rates, from the bottom up, as patterns of paths in an encoder with one task's head.
LAYERWISE_GROUPS = {
    "embeddings": r"embeddings/|(discriminator/)?encoder/embeddings_project/",
    "layers": r"(discriminator/)?encoder/layers/",
    "head": r"(discriminator/)?head/",
}


def layerwise_multipliers(params: PyTree, *, decay: float, top_exponent: int) -> PyTree:
    """Return the factor of each parameter's learning rate: decay^exponent, smaller towards the embeddings.

    Args:
        params: embeddings, encoder (its n layers stacked) and head.
        decay: 0.8 for small and base, 0.9 for large, as published.
        top_exponent: the exponent of the top layer, 1 for one factor of `decay` between head and top layer. The head's
            exponent is 0; each lower layer's, and then the embeddings', is larger by 1 than that of the layer above.

    Returns:
        Float32 factors that broadcast against the parameters: stacked layers have one for each layer.

    Raises:
        UserError: if a parameter does not belong to exactly one group, or to no stack of layers.
    """
    leaves = traverse_util.flatten_dict(params, sep="/")
    groups = {path: [name for name, pattern in LAYERWISE_GROUPS.items() if re.match(pattern, path)] for path in leaves}
    ungrouped = [path for path, found in groups.items() if len(found) != 1]
    if ungrouped:
        raise UserError(
            f"layerwise_lr_decay has not exactly one group for {', '.join(ungrouped)}: it is for fine-tuning an "
            "encoder with a head; set it to 1.0 to give every parameter the same learning rate"
        )
    depths = {leaf.shape[0] for path, leaf in leaves.items() if groups[path] == ["layers"]}
    if len(depths) != 1:
        raise UserError(f"layerwise_lr_decay needs one stack of layers, and these parameters have {sorted(depths)}")
    (num_layers,) = depths

    def factor(path: tuple[str, ...], leaf: jax.Array) -> jax.Array:
        (group,) = groups["/".join(path)]
        if group == "head":
            return jnp.ones((), jnp.float32)
        if group == "embeddings":
            return jnp.asarray(decay ** (num_layers + top_exponent), jnp.float32)
        powers_N = [decay ** (num_layers - 1 - layer + top_exponent) for layer in range(num_layers)]
        return jnp.asarray(powers_N, jnp.float32).reshape(-1, *(1,) * (leaf.ndim - 1))

    return traverse_util.path_aware_map(factor, params)


def scale_by_layer(decay: float, top_exponent: int) -> optax.GradientTransformation:
    """Return a transformation that multiplies updates by `layerwise_multipliers`."""

    def update(updates: PyTree, params: PyTree | None) -> PyTree:
        del params
        factors = layerwise_multipliers(updates, decay=decay, top_exponent=top_exponent)
        return jax.tree.map(jnp.multiply, updates, factors)

    return optax.stateless(update)


def make_optimizer(config: OptimizerConfig, *, generator: str = GENERATOR) -> optax.GradientTransformation:
    """Chain clipping, update rule, weight decay, factors of the learning rate and schedule, in the release's order.

    Args:
        config: the settings.
        generator: regular expression that matches the beginning of the paths of the generator's parameters.
    """
    decay = optax.add_decayed_weights(config.weight_decay_rate, mask=lambda params: decayed(params, config.no_decay))
    stable = config.rule == "stable_adamw"
    # A checkpoint's arrays are named by their place in this chain.
    return optax.chain(
        clip(config, generator),
        update_rule(config, decay),
        optax.identity() if stable else decay,
        rate_factors(config, generator),
        optax.scale_by_learning_rate(lambda count: learning_rate(config, count)),
    )


def update_rule(config: OptimizerConfig, decay: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return the transformation that `config.rule` names; that of "stable_adamw" includes the weight decay."""
    adams = config.beta_1, config.beta_2, config.epsilon
    if config.rule == "bert_adam":
        return update_rules.scale_by_bert_adam(*adams)
    if config.rule == "stable_adamw":
        return update_rules.scale_by_stable_adamw(*adams, decay)
    if config.rule == "muon":
        adam = update_rules.scale_by_adam(*adams)
        return update_rules.scale_by_muon_and_adam(config.muon_momentum, config.muon_update_rms, adam)
    return update_rules.scale_by_adam(*adams)


def clip(config: OptimizerConfig, generator: str) -> optax.GradientTransformation:
    """Return a transformation that limits the norm of all gradients, or of the generator's and the others' apart."""

    def at_most(norm: float | None) -> optax.GradientTransformation:
        return optax.identity() if norm is None else optax.clip_by_global_norm(norm)

    if config.generator_clip_norm is None:
        return at_most(config.clip_norm)
    return for_generator(generator, at_most(config.generator_clip_norm), others=at_most(config.clip_norm))


def rate_factors(config: OptimizerConfig, generator: str) -> optax.GradientTransformation:
    """Return a transformation that multiplies updates by the ratio of their learning rate to the base rate."""
    factors = []
    if config.layerwise_lr_decay != 1:
        factors.append(scale_by_layer(config.layerwise_lr_decay, config.top_layer_exponent))
    if config.generator_learning_rate is not None:
        factor = optax.scale(config.generator_learning_rate / config.learning_rate)
        factors.append(for_generator(generator, factor, others=optax.identity()))
    return optax.chain(*factors) if factors else optax.identity()


def for_generator(
    generator: str, rule: optax.GradientTransformation, *, others: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Return a transformation that applies `rule` to the generator's parameters together, `others` to the rest."""
    return optax.partition(
        {True: rule, False: others},
        lambda params: update_rules.by_path(lambda path: re.match(generator, path) is not None, params),
    )
