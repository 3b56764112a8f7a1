"""Write the model card of an exported model: its sizes, and what is known of its training."""

import json
from collections.abc import Sequence
from pathlib import Path

from electra_jax.checkpoints.model_dir import Loaded
from electra_jax.interchange.imported import parameter_count


def write_card(path: Path, model: Loaded, form: str, notes: Sequence[str] = ()) -> None:
    """Write README.md.

    Args:
        path: the file to write.
        model: the exported model.
        form: the format of the directory, in words.
        notes: on what the format cannot hold.
    """
    lines = card(model, form)
    if notes:
        lines += ["", *(f"- {note}" for note in notes)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def card(model: Loaded, form: str) -> list[str]:
    """Return the lines of the card."""
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
        f"| vocabulary | {encoder.vocab_size:,} entries{casing(model)} |",
        f"| updates | {model.step:,} |",
    ]
    if description.labels:
        lines.append(f"| labels | {', '.join(description.labels)} |")
    for name, value in description.facts.items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        lines.append(f"| {name} | {shown} |")
    return lines


def casing(model: Loaded) -> str:
    """Return a clause that says how text is normalised, or an empty string for a model without a vocabulary."""
    if model.vocabulary is None:
        return ""
    if model.vocabulary.lowercase is None:
        return " of tokenizer.json"
    lowercase = "lower-cased" if model.vocabulary.lowercase else "cased"
    return f", {lowercase}{', accents stripped' if model.vocabulary.strip_accents else ''}"
