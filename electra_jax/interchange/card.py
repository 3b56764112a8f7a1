"""The model card beside an exported model: what it is, and the facts of its training that are known."""

import json
from pathlib import Path

from electra_jax.inference.network import Model
from electra_jax.interchange.imported import parameter_count


def write_card(path: Path, model: Model, form: str) -> None:
    """Writes README.md.

    Args:
        path: of the file.
        model: what was exported.
        form: what the directory is, in words.
    """
    path.write_text("\n".join(card(model, form)) + "\n", encoding="utf-8")


def card(model: Model, form: str) -> list[str]:
    """The card's lines."""
    description, encoder = model.description, model.description.encoder
    lines = [
        f"# ELECTRA: {description.kind.replace('_', ' ')}",
        "",
        f"Exported by electra-jax as {form}.",
        "",
        "| | |",
        "|---|---|",
        f"| parameters | {parameter_count(model.params):,} |",
        f"| layers | {encoder.num_hidden_layers} |",
        f"| hidden size | {encoder.hidden_size} |",
        f"| embedding size | {encoder.embedding_size} |",
        f"| attention heads | {encoder.num_attention_heads} |",
        f"| feed-forward size | {encoder.intermediate_size} |",
        f"| longest sequence | {encoder.max_position_embeddings} |",
        f"| vocabulary | {encoder.vocab_size:,} Vocabulary{casing(model)} |",
        f"| updates | {model.step:,} |",
    ]
    if description.labels:
        lines.append(f"| labels | {', '.join(description.labels)} |")
    for name, value in description.facts.items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        lines.append(f"| {name} | {shown} |")
    return lines


def casing(model: Model) -> str:
    """How text is normalised, as a clause."""
    if model.vocabulary is None:
        return ""
    lowercase = "lower-cased" if model.vocabulary.lowercase else "cased"
    return f", {lowercase}{', accents stripped' if model.vocabulary.strip_accents else ''}"
