"""The two towers of a pre-trained model, whatever variant of pre-training made it.

Variants share encoders and embeddings in different ways (`pretraining`, `word_objectives`, `electric`). Once trained,
each is a plain discriminator, a plain generator, or both: sums of tables are taken, shared parts are repeated.
"""

import jax
import numpy as np

from electra_jax.model.types import PyTree

TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")


def fold(params: PyTree) -> tuple[str, PyTree]:
    """A pre-training model's parameters as plain towers.

    Args:
        params: as any objective trains them.

    Returns:
        The kind ("pretraining", "discriminator" or "generator"), and the tree that `description.Description` has for
        it. A main tower that predicts words is a generator. A two-tower generator, and a copy gate, are left out.
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


def fold_shapes(params: PyTree) -> tuple[str, PyTree]:
    """`fold` of a tree of shapes: `jax.ShapeDtypeStruct` leaves in and out."""
    kinds = []

    def tree(params: PyTree) -> PyTree:
        kind, folded = fold(params)
        kinds.append(kind)
        return folded

    shapes = jax.eval_shape(tree, params)
    return kinds[0], shapes


def main_embeddings(params: PyTree) -> PyTree:
    """What the main tower reads: the common tables, with its own added under gradient-disentangled sharing."""
    common, own = params["embeddings"], params["discriminator"].get("embeddings")
    if own is None:
        return common
    return {**{name: common[name] + own[name] for name in TABLES}, "layer_norm": own["layer_norm"]}


def sizes(params: PyTree, tower: str) -> dict[str, int]:
    """The sizes of a folded model's tower that its shapes tell, by the names of `EncoderConfig`."""
    tables = params[tower].get("embeddings", params["embeddings"])
    layers = params[tower]["encoder"]["layers"]
    depth, hidden, heads, _ = np.shape(layers["attention"]["query_kernel"])
    return {
        "vocab_size": np.shape(tables["word_embeddings"])[0],
        "embedding_size": np.shape(tables["word_embeddings"])[1],
        "max_position_embeddings": np.shape(tables["position_embeddings"])[0],
        "type_vocab_size": np.shape(tables["token_type_embeddings"])[0],
        "hidden_size": hidden,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": np.shape(layers["intermediate"]["kernel"])[-1],
    }
