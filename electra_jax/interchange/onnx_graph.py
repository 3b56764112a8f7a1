"""Build the ONNX graph of an encoder and its head, for ONNX Runtime in any language.

The graph has the operations of `model/`, at any batch size and length. Intermediate values have numbered names.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from electra_jax.model.config import SLIDING, EncoderConfig
from electra_jax.model.rotary import rotation
from electra_jax.model.types import PyTree

# The first opset with LayerNormalization; browsers and phones have supported it since 2022.
OPSET = 17
# The version of the file format that was released with this opset.
IR_VERSION = 8

BATCH, SEQUENCE = "batch", "sequence"


class Graph:
    """Collect the operations and constants of a graph; values are referred to by name."""

    def __init__(self) -> None:
        """Start empty."""
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str) -> str:
        """Declare an int64 input, [batch, sequence], and return its name."""
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.INT64, (BATCH, SEQUENCE)))
        return name

    def output(self, name: str, value: str, shape: tuple[str | int, ...], kind: int = TensorProto.FLOAT) -> None:
        """Declare a value as an output of the graph."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """Add an array and return its name."""
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def integers(self, *values: int) -> str:
        """Add an int64 vector (a shape, axes or indices) and return its name."""
        return self.constant(values, np.int64)

    def add(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """Add an operation and return the name of its result."""
        return self.add_several(operation, *inputs, count=1, **attributes)[0]

    def add_several(self, operation: str, *inputs: str, count: int, **attributes: Any) -> list[str]:
        """Add an operation and return the names of its `count` results."""
        names = [f"{operation}_{len(self._nodes)}_{number}" for number in range(count)]
        self._nodes.append(helper.make_node(operation, inputs, names, **attributes))
        return names

    def model(self, name: str, properties: Mapping[str, str]) -> onnx.ModelProto:
        """Return the graph as a model, with its opset and with properties for its reader."""
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._constants)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="electra-jax"
        )
        helper.set_model_props(model, dict(properties))
        return model


def dense(graph: Graph, values: str, params: PyTree) -> str:
    """Return x W + b over the last axis; see `layers.Linear`."""
    product = graph.add("MatMul", values, graph.constant(params["kernel"]))
    return graph.add("Add", product, graph.constant(params["bias"])) if "bias" in params else product


def layer_norm(graph: Graph, values: str, params: PyTree, epsilon: float) -> str:
    """Return the values normalized over the last axis."""
    bias = [graph.constant(params["bias"])] if "bias" in params else []
    return graph.add("LayerNormalization", values, graph.constant(params["scale"]), *bias, axis=-1, epsilon=epsilon)


def gelu(graph: Graph, values: str) -> str:
    """Return the exact Gaussian error linear unit, in the form that ONNX Runtime recognizes."""
    halves = graph.add("Mul", values, graph.constant(0.5))
    error = graph.add("Erf", graph.add("Mul", values, graph.constant(0.5**0.5)))
    return graph.add("Mul", halves, graph.add("Add", error, graph.constant(1.0)))


def length_of(graph: Graph, values: str) -> str:
    """Return the size of axis 1, int64 [1]."""
    return graph.add("Shape", values, start=1, end=2)


def places(graph: Graph, values: str) -> str:
    """Return 0, 1, ... along axis 1, int64 [L]."""
    length = graph.add("Squeeze", length_of(graph, values), graph.integers(0))
    return graph.add("Range", graph.constant(0, np.int64), length, graph.constant(1, np.int64))


def first_rows(graph: Graph, table: np.ndarray, like: str) -> str:
    """Return as many rows of a table as `like` has on axis 1; a longer row fails where the result is used."""
    return graph.add("Slice", graph.constant(table), graph.integers(0), length_of(graph, like), graph.integers(0))


def embedded(graph: Graph, tables: PyTree, ids: str, types: str | None, epsilon: float) -> str:
    """Return the embedded tokens, [B, L, E]; see `Embeddings`."""
    values = graph.add("Gather", graph.constant(tables["word_embeddings"]), ids, axis=0)
    if "position_embeddings" in tables:
        values = graph.add("Add", values, first_rows(graph, tables["position_embeddings"], ids))
    if types is not None:
        values = graph.add("Add", values, graph.add("Gather", graph.constant(tables["token_type_embeddings"]), types))
    return layer_norm(graph, values, tables["layer_norm"], epsilon)


def encoded(graph: Graph, config: EncoderConfig, params: PyTree, values: str, mask: str) -> str:
    """Return the last hidden states, [B, L, D]; see `Encoder`."""
    if "embeddings_project" in params:
        values = dense(graph, values, params["embeddings_project"])
    biases, turns = {}, {}
    for kind in dict.fromkeys(config.kinds):
        biases[kind] = attention_bias(graph, mask, config.local_attention // 2 if kind == SLIDING else None)
        if config.position_embedding_type == "rotary":
            theta = config.local_rope_theta if kind == SLIDING else config.global_rope_theta
            turns[kind] = rotation_of(graph, config, theta, mask)
    residual = values
    for number, kind in enumerate(config.kinds):
        layer = jax.tree.map(lambda leaf, row=number: leaf[row], params["layers"])
        update = attended(graph, config, layer["attention"], values, biases[kind], turns.get(kind))
        residual = graph.add("Add", residual, update)
        values = layer_norm(graph, residual, layer["attention_layer_norm"], config.layer_norm_eps)
        # With post-LayerNorm the normalized sum is the next residual.
        residual = values if config.norm_placement == "post" else residual
        inner = gelu(graph, dense(graph, values, layer["intermediate"]))
        if "gate" in layer:
            inner = graph.add("Mul", inner, dense(graph, values, layer["gate"]))
        residual = graph.add("Add", residual, dense(graph, inner, layer["output"]))
        values = layer_norm(graph, residual, layer["output_layer_norm"], config.layer_norm_eps)
        residual = values if config.norm_placement == "post" else residual
    return values


def attention_bias(graph: Graph, mask: str, reach: int | None) -> str:
    """Return 0 where a token may be attended to and -10000 elsewhere, float32 [B, 1, 1, S]; [B, 1, L, S] in a window.

    Args:
        graph: the graph.
        mask: the attention mask, int64 [B, S].
        reach: the tokens of a window on each side; None for whole rows.
    """
    seen = graph.add("Cast", graph.add("Unsqueeze", mask, graph.integers(1, 2)), to=TensorProto.FLOAT)
    if reach is not None:
        numbers = places(graph, mask)
        columns = graph.add("Unsqueeze", numbers, graph.integers(1))
        distances = graph.add("Abs", graph.add("Sub", numbers, columns))
        near = graph.add("LessOrEqual", distances, graph.constant(reach, np.int64))
        itself = graph.add("Equal", distances, graph.constant(0, np.int64))
        near, itself = (graph.add("Cast", one, to=TensorProto.FLOAT) for one in (near, itself))
        seen = graph.add("Max", graph.add("Mul", seen, near), itself)
    return graph.add("Mul", graph.add("Sub", graph.constant(1.0), seen), graph.constant(-10000.0))


def rotation_of(graph: Graph, config: EncoderConfig, theta: float, like: str) -> tuple[str, str]:
    """Return the cosines and the sines of each position's rotary angles, [L, C/2] each."""
    positions = np.arange(config.max_position_embeddings, dtype=np.int32)[None]
    cos, sin = (first_rows(graph, np.asarray(part)[0], like) for part in rotation(positions, config.head_size, theta))
    return cos, sin


def attended(
    graph: Graph, config: EncoderConfig, params: PyTree, values: str, bias: str, turn: tuple[str, str] | None
) -> str:
    """Return the output of attention to the hidden states, [B, L, D]; see `SelfAttention`."""
    width = config.hidden_size

    def projected(name: str) -> str:
        flat = {"kernel": params[f"{name}_kernel"].reshape(width, width)}
        if config.attention_bias:
            flat["bias"] = params[f"{name}_bias"].reshape(width)
        shape = graph.integers(0, 0, config.num_attention_heads, config.head_size)
        split = graph.add("Reshape", dense(graph, values, flat), shape)
        heads = graph.add("Transpose", split, perm=[0, 2, 1, 3])
        if f"{name}_layer_norm" in params:
            heads = layer_norm(graph, heads, params[f"{name}_layer_norm"], config.layer_norm_eps)
        return heads if turn is None or name == "value" else rotated(graph, heads, turn)

    query, key, value = map(projected, ("query", "key", "value"))
    scaled = graph.add("Mul", query, graph.constant(config.head_size**-0.5))
    scores = graph.add("MatMul", scaled, graph.add("Transpose", key, perm=[0, 1, 3, 2]))
    probabilities = graph.add("Softmax", graph.add("Add", scores, bias), axis=-1)
    context = graph.add("Transpose", graph.add("MatMul", probabilities, value), perm=[0, 2, 1, 3])
    joined = graph.add("Reshape", context, graph.integers(0, 0, width))
    output = {"kernel": params["output_kernel"].reshape(width, width)}
    return dense(graph, joined, output | ({"bias": params["output_bias"]} if config.attention_bias else {}))


def rotated(graph: Graph, values: str, turn: tuple[str, str]) -> str:
    """Rotate each pair of channels of [B, H, L, C] by an angle in proportion to its position; see `rotary.rotate`."""
    cos, sin = turn
    first, second = graph.add_several("Split", values, count=2, axis=-1)
    ahead = graph.add("Sub", graph.add("Mul", first, cos), graph.add("Mul", second, sin))
    across = graph.add("Add", graph.add("Mul", second, cos), graph.add("Mul", first, sin))
    return graph.add("Concat", ahead, across, axis=-1)
