"""Write the model card of an exported model: front matter for hubs, its sizes and scores, and how it was trained."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from electra_jax.checkpoints.model_dir import Loaded
from electra_jax.checkpoints.model_record import SOURCE, Description
from electra_jax.interchange.imported import parameter_count
from electra_jax.interchange.source_card import CARD
from electra_jax.tasks.text.glue import GLUE

# The hub's name for the task of each kind of model; it has none for a discriminator's own head.
PIPELINES = {
    "generator": "fill-mask",
    "encoder": "feature-extraction",
    "sequence_classification": "text-classification",
    "multi_label_classification": "text-classification",
    "regression": "text-classification",
    "multiple_choice": "multiple-choice",
    "token_classification": "token-classification",
    "question_answering": "question-answering",
    "sentence_embedding": "sentence-similarity",
}
# Public data sets by the names of tasks, besides GLUE's; any other is the user's own.
DATASETS = {
    "squad_v1": "squad",
    "squad_v2": "squad_v2",
    "ner": "conll2003",
    "chunk": "conll2000",
    "swag": "swag",
    "race": "race",
}
# The hub's names of scores, where they differ from ours.
METRICS = {
    "matthews": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
    "exact": "exact_match",
    "auc": "roc_auc",
}
# Facts that reveal nothing about the machine that the model was trained on, and their names in the card.
TRAINING = {
    "objective": "objective",
    "masked share": "masked share",
    "sequence length": "sequence length",
    "batch size": "batch size",
    "learning rate": "learning rate",
    "epochs": "epochs",
    "mean of the checkpoints": "mean of the checkpoints",
}
ENERGIES = (
    "the logits are no odds of being replaced: Electric trained the model, and the logit of a token is its energy, "
    "minus its log-likelihood given all the others, up to a constant (Clark et al., 2020, section 3)"
)


def write_card(folder: Path, model: Loaded, form: str, notes: Sequence[str] = ()) -> None:
    """Write README.md.

    Args:
        folder: where to write.
        model: the exported model.
        form: the format of the directory, in words.
        notes: notes on what the format cannot hold.
    """
    description = model.description
    data = front_matter(description)
    lines = ["---", data.to_yaml(line_break="\n").rstrip("\n"), "---", "", f"# {title(description)}", ""]
    lines += [f"Exported by electra-jax as {form}.", "", *table(sizes(model))]
    if description.facts.get("scores by split"):
        rows = [(score.dataset_split, shown(score)) for score in data.eval_results or ()]
        lines += ["", "## Scores", "", *table([(str(split), text) for split, text in rows])]
    if trained := training(description):
        lines += ["", "## Training", "", *table(trained)]
    if notes:
        lines += ["", "## Notes", "", *(f"- {note}" for note in notes)]
    (folder / CARD).write_text("\n".join(lines) + "\n", encoding="utf-8")


def front_matter(description: Description) -> ModelCardData:
    """Return the front matter of the card, which hubs read."""
    source = description.source.get(SOURCE, {})
    vectors, modern = description.kind == "sentence_embedding", description.encoder.norm_placement == "pre"
    scores = results(description)
    return ModelCardData(
        base_model=source.get("base_model"),
        eval_results=scores or None,
        language=source.get("language"),
        library_name="sentence-transformers" if vectors else "transformers",
        license=source.get("license"),
        license_link=source.get("license_link"),
        license_name=source.get("license_name"),
        model_name=title(description) if scores else None,
        pipeline_tag=PIPELINES.get(description.kind),
        tags=["modernbert" if modern else "electra", "replaced-token-detection", "electra-jax"],
    )


def results(description: Description) -> list[EvalResult]:
    """Return the scores of a fine-tuned model on every split that it was scored on."""
    task = description.task
    if task is None:
        return []
    name = task["task"]
    glue = name in GLUE
    dataset = "glue" if glue else DATASETS.get(name, "own")
    return [
        EvalResult(
            # A discriminator has a task only where a prompt asks it.
            task_type=PIPELINES.get(description.kind, "text-classification"),
            dataset_type=dataset,
            dataset_name=f"GLUE {name}" if glue else name if name in DATASETS else f"own files ({name})",
            dataset_config=name if glue else None,
            dataset_split=split,
            metric_type=METRICS.get(metric, metric),
            metric_name=metric,
            metric_value=round(value, 4),
        )
        for split, scores in description.facts.get("scores by split", {}).items()
        for metric, value in scores.items()
        # JSON has no NaN, which a score is if all labels are the same.
        if isinstance(value, float) and math.isfinite(value)
    ]


def shown(score: EvalResult) -> str:
    """Return a score in words."""
    return f"{score.metric_name} {score.metric_value:g}"


def title(description: Description) -> str:
    """Return the heading of the card."""
    blocks = "ModernBERT" if description.encoder.norm_placement == "pre" else "ELECTRA"
    return f"{blocks}: {description.kind.replace('_', ' ')}"


def sizes(model: Loaded) -> list[tuple[str, str]]:
    """Return the rows of the table of sizes."""
    description, encoder = model.description, model.description.encoder
    rows = [
        ("parameters", f"{parameter_count(model.params):,}"),
        ("layers", f"{encoder.num_hidden_layers}"),
        ("hidden size", f"{encoder.hidden_size}"),
        ("embedding size", f"{encoder.embedding_size}"),
        ("attention heads", f"{encoder.num_attention_heads}"),
        ("feed-forward size", f"{encoder.intermediate_size}"),
        ("longest sequence", f"{encoder.max_position_embeddings}"),
        ("vocabulary", f"{encoder.vocab_size:,} entries{casing(model)}"),
        ("updates", f"{model.step:,}"),
    ]
    return rows + ([("labels", ", ".join(description.labels))] if description.labels else [])


def training(description: Description) -> list[tuple[str, str]]:
    """Return the rows of the table of training: numbers and names, but no paths of files."""
    task, facts = description.task, description.facts
    rows = [("task", str(task["task"]))] if task is not None else []
    return rows + [(name, words(facts[fact])) for fact, name in TRAINING.items() if facts.get(fact) is not None]


def words(value: Any) -> str:
    """Return a fact in words."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def table(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Return the lines of a table without a heading."""
    return ["| | |", "|---|---|", *(f"| {name} | {text.replace('|', chr(92) + '|')} |" for name, text in rows)]


def casing(model: Loaded) -> str:
    """Return a clause that says how text is normalised, or an empty string for a model without a vocabulary."""
    if model.vocabulary is None:
        return ""
    if model.vocabulary.lowercase is None:
        return " of tokenizer.json"
    lowercase = "lower-cased" if model.vocabulary.lowercase else "cased"
    return f", {lowercase}{', accents stripped' if model.vocabulary.strip_accents else ''}"
