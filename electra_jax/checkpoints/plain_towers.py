"""Turn the parameters of any variant of pre-training into plain towers.

Variants share encoders and embeddings in different ways (see `model.electra` and `model.two_towers`). Once trained,
each becomes a plain discriminator, a plain generator, or both: added tables are summed, shared parts are repeated.
"""

import jax
import numpy as np

from electra_jax.model.types import PyTree

TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")


def to_plain_towers(params: PyTree) -> tuple[str, PyTree]:
    """Return a pre-training model's parameters as plain towers.

    Args:
        params: the parameters as any objective trains them.

    Returns:
        The kind ("pretraining", "discriminator" or "generator"), and its parameter tree (see `model_record`). A main
        tower that predicts words becomes a generator. A two-tower generator, a copy gate and a head that chooses among
        candidates are left out.
    """
    main, helper = params["discriminator"], params.get("generator", {})
    embeddings = {"embeddings": main_embeddings(params)}
    main_head = main.get("head", {})
    if "prediction" not in main_head:
        head = main_head or helper["head"]
        return "generator", {**embeddings, "generator": {"encoder": main["encoder"], "head": head}}
    discriminator = {"discriminator": {name: main[name] for name in ("encoder", "head")}}
    if "head" not in helper or "ltr" in helper:
        return "discriminator", {**embeddings, **discriminator}
    generator = {"encoder": helper.get("encoder", main["encoder"]), "head": helper["head"]}
    if "embeddings" in helper:
        generator["embeddings"] = helper["embeddings"]
    elif "embeddings" in main:
        generator["embeddings"] = params["embeddings"]
    return "pretraining", {**embeddings, **discriminator, "generator": generator}


def plain_tower_shapes(params: PyTree) -> tuple[str, PyTree]:
    """Apply `to_plain_towers` to a tree of shapes: `jax.ShapeDtypeStruct` leaves in and out."""
    kinds = []

    def tree(params: PyTree) -> PyTree:
        kind, folded = to_plain_towers(params)
        kinds.append(kind)
        return folded

    shapes = jax.eval_shape(tree, params)
    return kinds[0], shapes


def main_embeddings(params: PyTree) -> PyTree:
    """Return the main tower's tables: the common ones, plus its own under gradient-disentangled sharing."""
    common, own = params["embeddings"], params["discriminator"].get("embeddings")
    if own is None:
        return common
    return {**{name: common[name] + own[name] for name in TABLES if name in common}, "layer_norm": own["layer_norm"]}


def sizes(params: PyTree, tower: str) -> dict[str, int]:
    """Return the sizes of a plain tower that follow from its shapes, by the field names of `EncoderConfig`."""
    tables = params[tower].get("embeddings", params["embeddings"])
    layers = params[tower]["encoder"]["layers"]
    depth, hidden, heads, _ = np.shape(layers["attention"]["query_kernel"])
    rows = {"max_position_embeddings": "position_embeddings", "type_vocab_size": "token_type_embeddings"}
    return {
        "vocab_size": np.shape(tables["word_embeddings"])[0],
        "embedding_size": np.shape(tables["word_embeddings"])[1],
        **{size: np.shape(tables[table])[0] for size, table in rows.items() if table in tables},
        "hidden_size": hidden,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": np.shape(layers["intermediate"]["kernel"])[-1],
    }
