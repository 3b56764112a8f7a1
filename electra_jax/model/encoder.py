"""Define the Transformer encoder: a stack of attention and feed-forward layers, as in BERT or ModernBERT.

Parameters are float32 and carry logical axis names (see `layers`). Matrix products run in `config.dtype`; softmax and
LayerNorm run in float32.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from electra_jax.model.attention import SelfAttention
from electra_jax.model.config import FULL, REMAT_POLICIES, EncoderConfig
from electra_jax.model.layers import Dropout, LayerNorm, Linear, constrain, gelu, unstacked
from electra_jax.model.rotary import Rotation, rotation
from electra_jax.model.types import PyTree


class Stream(NamedTuple):
    """Hold the states that pass from layer to layer.

    Attributes:
        hidden_BLD: normalized, in the encoder's dtype: what the next part reads.
        residual_BLD: float32, what updates are added to; None with post-LayerNorm, where `hidden_BLD` serves.
    """

    hidden_BLD: jax.Array
    residual_BLD: jax.Array | None


class EncoderLayer(nn.Module):
    """Attention and feed-forward; each update passes dropout and is added to the residuals, and the sum is normalized.

    With post-LayerNorm the normalized sum is also the next residual. With pre-LayerNorm the sum itself is, and the
    LayerNorm at the end of a layer is the one that `transformers` has before the next attention, or its final one.

    Attributes:
        config: the encoder's sizes and parts.
        deterministic: whether to run without dropout.
        kind: "full_attention" or "sliding_attention".
    """

    config: EncoderConfig
    deterministic: bool
    kind: str

    @nn.compact
    def __call__(self, stream: Stream, attention_mask: jax.Array, turn: Rotation | None) -> tuple[Stream, None]:
        """Map a stream of [B, L, D] to the next, as one step of the scan over layers."""
        hidden_BLD, residual_BLD = stream
        hidden_BLD = constrain(hidden_BLD, "batch", None, None)
        attended_BLD = SelfAttention(self.config, self.kind, name="attention")(
            hidden_BLD, attention_mask, turn, deterministic=self.deterministic
        )
        stream = self.add_and_norm("attention_layer_norm", Stream(hidden_BLD, residual_BLD), attended_BLD)
        stream = self.add_and_norm("output_layer_norm", stream, self.feed_forward(stream.hidden_BLD))
        self.sow("intermediates", "hidden", stream.hidden_BLD if stream.residual_BLD is None else stream.residual_BLD)
        return stream, None

    def feed_forward(self, hidden_BLD: jax.Array) -> jax.Array:
        """Return the output [B, L, D] of the feed-forward, from activations [B, L, F]."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)

        def inner(name: str) -> jax.Array:
            return Linear(
                config.intermediate_size, ("embed", "mlp"), config.initializer, dtype, config.mlp_bias, name=name
            )(hidden_BLD)

        inner_BLF = gelu(inner("intermediate"))
        if config.gated_mlp:
            inner_BLF *= inner("gate")
        return Linear(
            config.hidden_size, ("mlp", "embed"), config.output_initializer, dtype, config.mlp_bias, name="output"
        )(inner_BLF)

    def add_and_norm(self, name: str, stream: Stream, update_BLD: jax.Array) -> Stream:
        """Add an update to the residuals, and normalize the sum."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        update_BLD = Dropout(config.hidden_dropout_prob, config.dropout_bits, config.dropout_prng)(
            update_BLD, deterministic=self.deterministic
        )
        of_residuals = stream.residual_BLD is not None
        norm = LayerNorm(config.layer_norm_eps, "embed", dtype, config.norm_bias, of_residuals, name=name)
        if stream.residual_BLD is None:
            return Stream(norm(stream.hidden_BLD.astype(update_BLD.dtype) + update_BLD), None)
        residual_BLD = stream.residual_BLD + update_BLD.astype(jnp.float32)
        return Stream(norm(residual_BLD), residual_BLD)


class Encoder(nn.Module):
    """A stack of layers over embedded tokens; its parameters have a leading axis `layers` (N).

    Applied with `mutable="intermediates"`, it also returns its input (`embedded`) and every layer's `hidden` states
    (with pre-LayerNorm, the residuals) and, for exact attention, `probs`, stacked over layers.
    """

    config: EncoderConfig

    @nn.compact
    def __call__(
        self,
        embedded_BLE: jax.Array,
        attention_mask: jax.Array,
        position_ids_BL: jax.Array | None = None,
        *,
        deterministic: bool,
    ) -> jax.Array:
        """Return hidden states [B, L, D] in `config.dtype`.

        Args:
            embedded_BLE: embedded tokens.
            attention_mask: int, [B, S], 1 for a real token (fused attention needs padding to come last), or [B, L, S],
                1 where token L may attend to token S.
            position_ids_BL: int32, the positions of rotary embeddings; None to count along the row.
            deterministic: whether to run without dropout.
        """
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        hidden_BLD = embedded_BLE = constrain(embedded_BLE, "batch", None, None)
        if config.embedding_size != config.hidden_size:
            # "embed" can name only one axis of a parameter, and the hidden axis is the one that is sharded.
            hidden_BLD = Linear(
                config.hidden_size,
                (None, "embed"),
                nn.initializers.glorot_uniform(),
                dtype,
                name="embeddings_project",
            )(embedded_BLE)
        hidden_BLD = hidden_BLD.astype(dtype)
        self.sow("intermediates", "embedded", hidden_BLD)
        stream = Stream(hidden_BLD, hidden_BLD.astype(jnp.float32) if config.norm_placement == "pre" else None)
        turns = self.rotations(position_ids_BL, hidden_BLD.shape[1])
        # Layers of every kind have the same parameters, so any kind can initialize them.
        if len(set(config.kinds)) == 1 or self.is_initializing():
            stream = self.scan(stream, attention_mask, turns[config.kinds[0]], deterministic=deterministic)
        else:
            stream = self.scan_rounds(stream, attention_mask, turns, deterministic=deterministic)
        return constrain(stream.hidden_BLD, "batch", None, None)

    def rotations(self, position_ids_BL: jax.Array | None, length: int) -> dict[str, Rotation | None]:
        """Return the rotation of the positions in each kind of layer."""
        config = self.config
        if config.position_embedding_type == "absolute":
            return dict.fromkeys(config.kinds)
        positions_xL = jnp.arange(length, dtype=jnp.int32)[None] if position_ids_BL is None else position_ids_BL
        thetas = {
            kind: config.global_rope_theta if kind == FULL else config.local_rope_theta for kind in set(config.kinds)
        }
        return {kind: rotation(positions_xL, config.head_size, theta) for kind, theta in thetas.items()}

    def scan(self, stream: Stream, attention_mask: jax.Array, turn: Rotation | None, *, deterministic: bool) -> Stream:
        """Run layers of one kind in a loop, one layer per step."""
        config = self.config
        layer = EncoderLayer
        if (policy := REMAT_POLICIES[config.remat_policy]) is not None:
            # Without the loop, XLA would merge the recomputation with the first computation.
            unrolled = config.scan_unroll >= config.num_hidden_layers
            layer = nn.remat(EncoderLayer, prevent_cse=unrolled, policy=policy)
        layers = nn.scan(
            layer,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,
            length=config.num_hidden_layers,
            unroll=1 if self.is_initializing() else config.scan_unroll,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        stream, _ = layers(config, deterministic, config.kinds[0], name="layers")(stream, attention_mask, turn)
        return stream

    def scan_rounds(
        self,
        stream: Stream,
        attention_mask: jax.Array,
        turns: dict[str, Rotation | None],
        *,
        deterministic: bool,
    ) -> Stream:
        """Run layers of two kinds in a loop, one round of `layer_types` per step, so that each layer costs its kind's.

        The body of `nn.scan` would be one layer that could be of either kind. Here each layer is applied to its row of
        the same stacked parameters.
        """
        config = self.config
        keys_N = None if deterministic else jax.random.split(self.make_rng("dropout"), config.num_hidden_layers)
        sows = self.is_mutable_collection("intermediates")

        def run(stream: Stream, row: tuple[PyTree, jax.Array | None], kind: str) -> tuple[Stream, PyTree]:
            params, key = row
            (stream, _), states = EncoderLayer(config, deterministic, kind, parent=None).apply(
                {"params": params},
                stream,
                attention_mask,
                turns[kind],
                rngs={} if key is None else {"dropout": key},
                mutable=["intermediates"] if sows else [],
            )
            return stream, states

        if (policy := REMAT_POLICIES[config.remat_policy]) is not None:
            unrolled = config.scan_unroll >= config.num_hidden_layers
            run = jax.checkpoint(run, prevent_cse=unrolled, policy=policy, static_argnums=2)
        stream, states = scan_in_rounds(run, stream, (self.get_variable("params", "layers"), keys_N), config)
        if sows:
            self.put_variable("intermediates", "layers", states["intermediates"])
        return stream


def scan_in_rounds(
    run: Callable[[Stream, PyTree, str], tuple[Stream, PyTree]], stream: Stream, rows: PyTree, config: EncoderConfig
) -> tuple[Stream, PyTree]:
    """Run a function over the N rows of a tree, carrying the stream from layer to layer.

    Args:
        run: takes a stream, a row of every leaf and the layer's kind; returns the next stream and the layer's record.
        stream: the first layer's input.
        rows: a tree with leaves [N, ...].
        config: tells how many rounds run in a loop: all whole ones, or none if it is unrolled completely.

    Returns:
        The last stream, and the records, stacked over layers.
    """
    depth, period = config.num_hidden_layers, len(config.layer_types)
    looped = 0 if config.scan_unroll >= depth else depth - depth % period

    def run_each(stream: Stream, rows: PyTree, kinds: tuple[str, ...]) -> tuple[Stream, PyTree]:
        said = []
        for row, kind in zip(unstack(rows, len(kinds)), kinds, strict=True):
            stream, state = run(stream, row, kind)
            said.append(state)
        return stream, jax.tree.map(lambda *leaves: jnp.stack(leaves), *said)

    parts = []
    if looped:
        stream, states = jax.lax.scan(
            lambda stream, rows: run_each(stream, rows, config.layer_types),
            stream,
            jax.tree.map(lambda leaf: leaf[:looped].reshape(-1, period, *leaf.shape[1:]), rows),
            unroll=max(1, config.scan_unroll // period),
        )
        parts.append(jax.tree.map(lambda leaf: leaf.reshape(looped, *leaf.shape[2:]), states))
    if looped < depth:
        stream, states = run_each(stream, jax.tree.map(lambda leaf: leaf[looped:], rows), config.kinds[looped:])
        parts.append(states)
    return stream, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def unstack(tree: PyTree, count: int) -> list[PyTree]:
    """Return the `count` rows of a tree with leaves [count, ...]."""
    leaves, structure = jax.tree.flatten(tree)

    def rows(leaf: jax.Array) -> list[jax.Array]:
        return list(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else unstacked(leaf)

    return [structure.unflatten(row) for row in zip(*map(rows, leaves), strict=True)]
