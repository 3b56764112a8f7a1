"""Map the tensors of an ELECTRA or BERT state dict of `transformers` to our parameters."""

from flax.traverse_util import flatten_dict

from electra_jax.checkpoints.model_record import Description
from electra_jax.interchange.layout import Layout, location
from electra_jax.model.types import PyTree

TABLES = {
    "word_embeddings": "word_embeddings.weight",
    "position_embeddings": "position_embeddings.weight",
    "token_type_embeddings": "token_type_embeddings.weight",
    "layer_norm/scale": "LayerNorm.weight",
    "layer_norm/bias": "LayerNorm.bias",
}

# Within one layer: our prefix and theirs.
LAYER = {
    "attention/query": "attention.self.query",
    "attention/key": "attention.self.key",
    "attention/value": "attention.self.value",
    "attention/output": "attention.output.dense",
    "attention_layer_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_layer_norm": "output.LayerNorm",
}

PRETRAINING_HEADS = {
    "generator/head/dense": "generator_predictions.dense",
    "generator/head/layer_norm": "generator_predictions.LayerNorm",
    "discriminator/head/dense": "discriminator_predictions.dense",
    "discriminator/head/prediction": "discriminator_predictions.dense_prediction",
}

_CLASSIFIER = {"head/dense": "classifier.dense", "head/prediction": "classifier.out_proj"}
FINE_TUNING_HEADS = {
    "sequence_classification": _CLASSIFIER,
    "multi_label_classification": _CLASSIFIER,
    "regression": _CLASSIFIER,
    "multiple_choice": {"head/dense": "sequence_summary.summary", "head/prediction": "classifier"},
    "token_classification": {"head/prediction": "classifier"},
    "question_answering": {},
}

LEAVES = {"kernel": "weight", "bias": "bias", "scale": "weight"}


def layout(description: Description, template: PyTree, *, prefix: str) -> Layout:
    """Return the location of every tensor of a model's state dict.

    Args:
        description: the description of one tower, because a pair has two state dicts.
        template: the shapes of our parameters.
        prefix: "electra." or "bert.", or "" for an encoder without a head.

    Raises:
        KeyError: if `transformers` has no name for a parameter.
    """
    tower = "discriminator" if description.discriminator is not None else "generator"
    names: Layout = {}
    for path, leaf in flatten_dict(template, sep="/").items():
        if path.startswith(f"{tower}/encoder/layers/"):
            for row in range(leaf.shape[0]):
                name = f"{prefix}encoder.layer.{row}.{_within(path.removeprefix(f'{tower}/encoder/layers/'), LAYER)}"
                names[name] = location(path, leaf.shape[1:], row=row, transposed=_is_matrix(path))
        elif path in ("head/span_kernel", "head/span_bias"):
            name = "qa_outputs.weight" if path == "head/span_kernel" else "qa_outputs.bias"
            # [2, D] on both sides.
            names[name] = location(path, leaf.shape, row=None, transposed=False)
        else:
            names[_whole(path, tower, description.kind, prefix)] = location(
                path, leaf.shape, row=None, transposed=_is_matrix(path)
            )
    return names


def _whole(path: str, tower: str, kind: str, prefix: str) -> str:
    """Return the name in `transformers` of a parameter that is not stacked."""
    if path.startswith("embeddings/"):
        return f"{prefix}embeddings.{TABLES[path.removeprefix('embeddings/')]}"
    if path.startswith(f"{tower}/encoder/embeddings_project/"):
        return f"{prefix}embeddings_project.{LEAVES[path.rpartition('/')[2]]}"
    if path == "generator/head/output_bias":
        return "generator_lm_head.bias"
    return _within(path, {**PRETRAINING_HEADS, **FINE_TUNING_HEADS.get(kind, {})})


def _within(path: str, prefixes: dict[str, str]) -> str:
    """Return the name in `transformers` of a parameter whose path is a known prefix, `/` or `_`, and a leaf."""
    for ours, theirs in prefixes.items():
        if path.startswith((f"{ours}/", f"{ours}_")) and path[len(ours) + 1 :] in LEAVES:
            return f"{theirs}.{LEAVES[path[len(ours) + 1 :]]}"
    raise KeyError(path)


def _is_matrix(path: str) -> bool:
    """Return whether a parameter is a kernel, which PyTorch stores transposed."""
    return path.endswith("kernel")
