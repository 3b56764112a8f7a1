"""The published optimizer: Adam without bias correction, decoupled weight decay, warm-up and polynomial decay."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from electra_jax.errors import UserError
from electra_jax.model.types import PyTree


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Settings of `make_optimizer`, with the release's names.

    Attributes:
        learning_rate: base rate, which warm-up and decay multiply.
        num_warmup_steps: length of the linear warm-up, not necessarily a whole number; 0 for none.
        num_train_steps: step at which the decay reaches zero.
        lr_decay_power: exponent of the decay (1 is linear).
        weight_decay_rate: decoupled decay, multiplied by the learning rate.
        no_decay: regular expression; parameters whose path it matches are not decayed.
        beta_1, beta_2, epsilon: Adam's; epsilon is added outside the root.
        clip_norm: largest global norm of the gradient.
        layerwise_lr_decay: factor from each layer to the one below it, in (0, 1]; 1 for one learning rate.
        lr_decay_share: share of the steps, at the end, over which the rate falls; 1 as published. Below 1 the rate is
            constant between warm-up and decay ("warm-up-stable-decay": Hu et al., 2024, MiniCPM, section 4).
        top_layer_exponent: of `layerwise_lr_decay`, for the top layer: see `layerwise_multipliers`.
    """

    learning_rate: float
    num_warmup_steps: float
    num_train_steps: int
    lr_decay_power: float
    weight_decay_rate: float
    no_decay: str
    beta_1: float
    beta_2: float
    epsilon: float
    clip_norm: float
    layerwise_lr_decay: float
    top_layer_exponent: int
    lr_decay_share: float

    def __post_init__(self) -> None:
        """Check the share.

        Raises:
            UserError: if `lr_decay_share` is not in (0, 1].
        """
        if not 0 < self.lr_decay_share <= 1:
            raise UserError(f"lr_decay_share is {self.lr_decay_share}: it must be above 0 and at most 1")


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


def scale_by_uncorrected_adam(beta_1: float, beta_2: float, epsilon: float) -> optax.GradientTransformation:
    """Scale updates to m / (sqrt(v) + epsilon): BERT's Adam has no bias correction.

    `optax.scale_by_adam` always corrects the moments.
    """

    def init(params: PyTree) -> optax.ScaleByAdamState:
        # Two trees: a state with the same buffer in two places cannot be donated.
        mu, nu = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), mu, nu)

    def update(
        updates: PyTree, state: optax.ScaleByAdamState, params: PyTree | None = None
    ) -> tuple[PyTree, optax.ScaleByAdamState]:
        del params
        mu = optax.tree.update_moment(updates, state.mu, beta_1, 1)
        nu = optax.tree.update_moment(updates, state.nu, beta_2, 2)
        scaled = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + epsilon), mu, nu)
        return scaled, optax.ScaleByAdamState(optax.safe_increment(state.count), mu, nu)

    return optax.GradientTransformation(init, update)


def decayed(params: PyTree, no_decay: str) -> PyTree:
    """Return True for each parameter that weight decay applies to."""

    def applies(key_path: tuple, _: Any) -> bool:
        return re.search(no_decay, jax.tree_util.keystr(key_path, simple=True, separator="/")) is None

    # An optimizer may be given any tree, also a single array.
    return jax.tree_util.tree_map_with_path(applies, params)


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
            is 0, and each layer's, and then the embeddings', is larger by 1 than that of the layer above.

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


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Chain clipping, Adam, weight decay, layer-wise factors and schedule, in the release's order."""
    layerwise = config.layerwise_lr_decay != 1
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        scale_by_uncorrected_adam(config.beta_1, config.beta_2, config.epsilon),
        optax.add_decayed_weights(config.weight_decay_rate, mask=lambda params: decayed(params, config.no_decay)),
        scale_by_layer(config.layerwise_lr_decay, config.top_layer_exponent) if layerwise else optax.identity(),
        optax.scale_by_learning_rate(lambda count: learning_rate(config, count)),
    )
