"""Names of tensors in a `transformers` state dict, and where they stand in our parameter tree."""

from flax.traverse_util import flatten_dict

from electra_jax.checkpoints.model_record import Description
from electra_jax.interchange.layout import Layout, place
from electra_jax.model.types import PyTree

TABLES = {
    "word_embeddings": "word_embeddings.weight",
    "position_embeddings": "position_embeddings.weight",
    "token_type_embeddings": "token_type_embeddings.weight",
    "layer_norm/scale": "LayerNorm.weight",
    "layer_norm/bias": "LayerNorm.bias",
}

# Within one layer: ours and theirs, without the leaf.
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

FINE_TUNING_HEADS = {
    "sequence_classification": {"head/dense": "classifier.dense", "head/prediction": "classifier.out_proj"},
    "regression": {"head/dense": "classifier.dense", "head/prediction": "classifier.out_proj"},
    "multiple_choice": {"head/dense": "sequence_summary.summary", "head/prediction": "classifier"},
    "token_classification": {"head/prediction": "classifier"},
    "question_answering": {},
}

LEAVES = {"kernel": "weight", "bias": "bias", "scale": "weight"}


def layout(description: Description, template: PyTree, *, prefix: str) -> Layout:
    """Every tensor of the model's state dict.

    Args:
        description: of one tower: a pair is two state dicts there.
        template: our tree's shapes.
        prefix: of the encoder's names, "electra." or "bert.", or "" for the bare encoder.

    Raises:
        KeyError: a parameter that `transformers` has no name for.
    """
    tower = "discriminator" if description.discriminator is not None else "generator"
    names: Layout = {}
    for path, leaf in flatten_dict(template, sep="/").items():
        if path.startswith(f"{tower}/encoder/layers/"):
            for row in range(leaf.shape[0]):
                name = f"{prefix}encoder.layer.{row}.{_within(path.removeprefix(f'{tower}/encoder/layers/'), LAYER)}"
                names[name] = place(path, leaf.shape[1:], row=row, transposed=_is_matrix(path))
        elif path in ("head/span_kernel", "head/span_bias"):
            name = "qa_outputs.weight" if path == "head/span_kernel" else "qa_outputs.bias"
            # Ours is [2, D], theirs too.
            names[name] = place(path, leaf.shape, row=None, transposed=False)
        else:
            names[_whole(path, tower, description.kind, prefix)] = place(
                path, leaf.shape, row=None, transposed=_is_matrix(path)
            )
    return names


def _whole(path: str, tower: str, kind: str, prefix: str) -> str:
    """Their name of a parameter that is not stacked."""
    if path.startswith("embeddings/"):
        return f"{prefix}embeddings.{TABLES[path.removeprefix('embeddings/')]}"
    if path.startswith(f"{tower}/encoder/embeddings_project/"):
        return f"{prefix}embeddings_project.{LEAVES[path.rpartition('/')[2]]}"
    if path == "generator/head/output_bias":
        return "generator_lm_head.bias"
    return _within(path, {**PRETRAINING_HEADS, **FINE_TUNING_HEADS.get(kind, {})})


def _within(path: str, prefixes: dict[str, str]) -> str:
    """Their name of a leaf below one of the prefixes; attention's leaves are joined with an underscore here."""
    for ours, theirs in prefixes.items():
        if path.startswith((f"{ours}/", f"{ours}_")) and path[len(ours) + 1 :] in LEAVES:
            return f"{theirs}.{LEAVES[path[len(ours) + 1 :]]}"
    raise KeyError(path)


def _is_matrix(path: str) -> bool:
    """Whether it is a kernel, which PyTorch keeps transposed."""
    return path.endswith("kernel")
