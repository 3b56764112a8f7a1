"""Map the tensors of a ModernBERT state dict of `transformers` to our parameters.

There, queries, keys and values are one tensor, `Wqkv`, and so are the activations and gates of a feed-forward, `Wi`.
`split_joint` cuts them into one tensor for each of our parameters, and `join_joint` joins these again. The LayerNorm
that ends a layer here belongs there to the attention of the next layer or, after the last layer, to no layer.
"""

from collections.abc import Mapping

import numpy as np
from flax.traverse_util import flatten_dict

from electra_jax.interchange.layout import Layout, location
from electra_jax.model.types import PyTree

# The parts of each joint tensor, in their order along its first axis.
JOINT = {"attn.Wqkv": ("query", "key", "value"), "mlp.Wi": ("intermediate", "gate")}

# Within one layer: our prefix and theirs.
LAYER = {
    "attention/query": "attn.Wqkv/query",
    "attention/key": "attn.Wqkv/key",
    "attention/value": "attn.Wqkv/value",
    "attention/output": "attn.Wo",
    "attention_layer_norm": "mlp_norm",
    "intermediate": "mlp.Wi/intermediate",
    "gate": "mlp.Wi/gate",
    "output": "mlp.Wo",
}
# The parts of the heads for predicting words and for fine-tuning.
HEADS = {"dense": "head.dense", "layer_norm": "head.norm", "prediction": "classifier"}

LEAVES = {"kernel": "weight", "bias": "bias", "scale": "weight"}


def layout(template: PyTree, *, tower: str, prefix: str) -> Layout:
    """Return the location of every tensor of a model's state dict, after `split_joint`.

    Args:
        template: the shapes of our parameters.
        tower: "discriminator" or "generator", whose encoder the model has.
        prefix: "model.", or "" for an encoder without a head.

    Raises:
        KeyError: if ModernBERT has no name for a parameter.
    """
    names: Layout = {}
    for path, leaf in flatten_dict(template, sep="/").items():
        matrix = path.endswith("kernel")
        if path.startswith(f"{tower}/encoder/layers/"):
            within = path.removeprefix(f"{tower}/encoder/layers/")
            for row in range(leaf.shape[0]):
                name = prefix + _of_layer(within, row, leaf.shape[0])
                names[name] = location(path, leaf.shape[1:], row=row, transposed=matrix)
        else:
            names[_whole(path, tower, prefix)] = location(path, leaf.shape, row=None, transposed=matrix)
    return names


def _of_layer(path: str, row: int, depth: int) -> str:
    """Return the name of a layer's parameter."""
    ours, _, leaf = path.replace("_kernel", "/kernel").replace("_bias", "/bias").rpartition("/")
    if ours == "output_layer_norm":
        owner = f"layers.{row + 1}.attn_norm" if row + 1 < depth else "final_norm"
    else:
        owner = f"layers.{row}.{LAYER[ours]}"
    owner, _, part = owner.partition("/")
    return f"{owner}.{LEAVES[leaf]}" + (f"/{part}" if part else "")


def _whole(path: str, tower: str, prefix: str) -> str:
    """Return the name of a parameter that is not stacked."""
    if path == "embeddings/word_embeddings":
        return f"{prefix}embeddings.tok_embeddings.weight"
    if path.startswith("embeddings/layer_norm/"):
        return f"{prefix}embeddings.norm.{LEAVES[path.rpartition('/')[2]]}"
    if path == "generator/head/output_bias":
        return "decoder.bias"
    ours, _, leaf = path.removeprefix(f"{tower}/").removeprefix("head/").rpartition("/")
    return f"{HEADS[ours]}.{LEAVES[leaf]}"


def split_joint(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a state dict with joint tensors cut into parts, `layers.0.attn.Wqkv.weight/query` and so on."""
    split = {}
    for name, tensor in tensors.items():
        parts = next((parts for joint, parts in JOINT.items() if f".{joint}." in name), None)
        # A tensor that cannot be cut is kept, and `layout.check` then reports its parts as missing.
        if parts is None or tensor.ndim == 0 or len(tensor) % len(parts):
            split[name] = tensor
        else:
            cut = np.split(tensor, len(parts))
            split |= {f"{name}/{part}": piece for part, piece in zip(parts, cut, strict=True)}
    return split


def join_joint(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a state dict with the parts joined that `split_joint` cut: its inverse."""
    joined = {}
    for name, tensor in tensors.items():
        owner, _, part = name.partition("/")
        if not part:
            joined[name] = tensor
        elif owner not in joined:
            parts = next(parts for joint, parts in JOINT.items() if f".{joint}." in owner)
            joined[owner] = np.concatenate([tensors[f"{owner}/{part}"] for part in parts])
    return joined
