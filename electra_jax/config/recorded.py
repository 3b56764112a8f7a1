"""Name the config.gin of a model directory, and rewrite one that an earlier version recorded to current names."""

import re
from typing import NamedTuple

from electra_jax.errors import UserError

# The current modules of classes that a config.gin of version 0.1 imports from `electra_jax` or `electra_jax.tasks`.
MOVED_MODULES = {
    "comparison": "electra_jax.config.comparison",
    "electric": "electra_jax.pretraining.electric",
    "encoder": "electra_jax.model.encoder",
    "finetune_run": "electra_jax.config.finetuning",
    "optimizer": "electra_jax.training.optimizer",
    "pretraining": "electra_jax.pretraining.replaced_token",
    "pretraining_data": "electra_jax.config.data",
    "run_config": "electra_jax.config.pretraining",
    "scoring_run": "electra_jax.config.prediction",
    "sharding": "electra_jax.training.sharding",
    "task_options": "electra_jax.tasks.options",
    "training": "electra_jax.training.loop",
    "word_objectives": "electra_jax.pretraining.masked_lm",
}


class RecordedFile(NamedTuple):
    """Name a config.gin that is read because it lies in a model directory: it is data, and must not run code.

    Attributes:
        path: the file.
        needs_imports: whether the run's own modules are needed, such as one that registers a SeqIO task; if not, their
            imports are left out.
    """

    path: str
    needs_imports: bool

    def __str__(self) -> str:
        """Return the path, for messages."""
        return self.path


class Switch(NamedTuple):
    """A current switch, and the fields that version 0.1 had instead.

    Attributes:
        owner: the dataclass that has them.
        name: the current field.
        standard, original: its values, as Gin writes them.
        fields: the fields of version 0.1, with the value that means `original`, as Gin writes it.
    """

    owner: str
    name: str
    standard: str
    original: str
    fields: dict[str, str]


SWITCHES = (
    Switch("CacheConfig", "example_building", "'complete'", "'original'", {"packing": "'reference'"}),
    Switch("OptimizerConfig", "top_layer_exponent", "1", "2", {"layerwise_exponents": "'reference'"}),
    Switch(
        "PretrainingRun",
        "rules",
        "'standard'",
        "'original'",
        {"mask_with_replacement": "True", "average_duplicates": "True", "reference_metrics": "True"},
    ),
    Switch(
        "TaskOptions",
        "rules",
        "'standard'",
        "'original'",
        {
            "gold_counts_predicted": "True",
            "span_reader": "'reference'",
            "alignment": "'reference'",
            "token_type_id": "1",
            "observed_labels": "True",
            "word_aligned_answers": "True",
            "answerless_windows_are_answerable": "True",
            "disjoint_windows": "True",
            "drop_empty_contexts": "True",
            "final_sep_is_answerable": "True",
            "project_words": "True",
            "no_span_text": "'empty'",
            "skip_unanswered": "True",
        },
    ),
)


class Field(NamedTuple):
    """A field that was added to a dataclass after configurations had been recorded without it.

    Attributes:
        owner: the dataclass that has it.
        name: the field.
        beside: a field that every recorded configuration of the dataclass binds on a line of its own.
        value: the behaviour of earlier versions, as Gin writes it; or an older field with the same value, as
            "Class.field".
    """

    owner: str
    name: str
    beside: str
    value: str


FIELDS = (
    Field("PretrainingRun", "schedule_steps", "weight_schedule", "OptimizerConfig.num_train_steps"),
    Field("PretrainingRun", "map_vocabulary", "weight_schedule", "False"),
    Field("PretrainingRun", "extend_positions", "weight_schedule", "None"),
    Field("PretrainingRun", "generator_first", "weight_schedule", "0.0"),
    Field("PretrainingRun", "copy_generator", "weight_schedule", "False"),
    Field("PretrainingRun", "freeze_generator", "weight_schedule", "False"),
    Field("PretrainingRun", "batch_size_warmup", "weight_schedule", "()"),
    Field("PretrainingRun", "sequence_length_warmup", "weight_schedule", "()"),
    Field("PretrainingRun", "mask_unit", "weight_schedule", "'token'"),
    Field("EncoderConfig", "pad_vocab_size_multiple", "initializer_range", "1"),
    Field("CorpusConfig", "min_characters", "skip_undecodable", "0"),
    Field("CorpusConfig", "max_characters", "skip_undecodable", "None"),
    Field("CorpusConfig", "min_letter_share", "skip_undecodable", "0.0"),
    Field("CorpusConfig", "deduplicate", "skip_undecodable", "None"),
    Field("CacheConfig", "allow_unknown", "held_out_fraction", "True"),
    Field("CacheConfig", "word_marks", "held_out_fraction", "False"),
    Field("FinetuningRun", "allow_unknown", "save_every", "True"),
    Field("FinetuningRun", "class_weights", "save_every", "None"),
    Field("FinetuningRun", "frozen_layers", "save_every", "None"),
    Field("FinetuningRun", "accumulation_steps", "save_every", "1"),
    Field("FinetuningRun", "patience", "save_every", "None"),
    Field("FinetuningRun", "keep_state", "save_every", "False"),
    # Earlier versions weighed the rows of each batch separately, which no value does: see `identity.BATCHES`.
    Field("FinetuningRun", "pool_batches", "save_every", "64"),
    Field("FinetuningRun", "scan_unroll", "save_every", "1"),
    # Earlier versions reported the best score on the examples that chose the checkpoint, which no value does.
    Field("FinetuningRun", "selection", "save_every", "'last'"),
    Field("ComparisonRun", "pretraining_seeds", "random_baseline", "1"),
    Field("ComparisonRun", "cool_down", "random_baseline", "None"),
    Field("ComparisonRun", "tune", "random_baseline", "()"),
    Field("ComparisonRun", "tune_share", "random_baseline", "0.1"),
    Field("OptimizerConfig", "rule", "lr_decay_share", "'bert_adam'"),
    Field("OptimizerConfig", "generator_learning_rate", "lr_decay_share", "None"),
    Field("OptimizerConfig", "muon_momentum", "lr_decay_share", "0.95"),
    Field("OptimizerConfig", "muon_update_rms", "lr_decay_share", "0.2"),
    Field("OptimizerConfig", "generator_clip_norm", "lr_decay_share", "None"),
    Field("MeshConfig", "deterministic", "tensor", "False"),
    Field("TaskOptions", "long_texts", "skip_bad_rows", "'cut'"),
    Field("TaskOptions", "qa_metric", "skip_bad_rows", "'squad'"),
    Field("TaskOptions", "folds", "skip_bad_rows", "None"),
    Field("TaskOptions", "fold", "skip_bad_rows", "None"),
    Field("TaskOptions", "fold_seed", "skip_bad_rows", "0"),
    Field("HeadOptions", "classifier_pooling", "beam_size", "'cls'"),
    Field("TaskOptions", "clip_predictions", "double_unordered", "True"),
    Field("HeadOptions", "layer", "beam_size", "None"),
    Field("HeadOptions", "pooling", "beam_size", "None"),
    Field("FinetuningRun", "temperature", "save_every", "0.05"),
    Field("TaskOptions", "multi_label", "label_column", "False"),
    Field("TaskOptions", "label_threshold", "label_column", "None"),
    Field("TaskOptions", "main_metric", "label_column", "None"),
    Field("TaskOptions", "choice_columns", "label_column", "None"),
    Field("TaskOptions", "template", "label_column", "None"),
    Field("TaskOptions", "label_words", "label_column", "None"),
)


def added_fields() -> tuple[Field, ...]:
    """Return all fields that were added, those of BERT's encoder included."""
    # Imported here because the command line answers before JAX is imported.
    from electra_jax.model.config import BERT_BLOCK

    block = (Field("EncoderConfig", name, "initializer_range", repr(value)) for name, value in BERT_BLOCK.items())
    return (*FIELDS, *block)


def with_current_fields(text: str) -> str:
    """Add the fields that an earlier version did not have to a configuration that it recorded.

    Args:
        text: a Gin file. Files that were not recorded are returned unchanged.
    """
    for field in added_fields():
        owner = re.search(rf"^(\w+\.{field.owner})\.{field.beside} = ", text, flags=re.MULTILINE)
        if owner is None or re.search(rf"^{re.escape(owner[1])}\.{field.name} = ", text, flags=re.MULTILINE):
            continue
        older = re.search(rf"^\w+\.{re.escape(field.value)} = (.*)$", text, flags=re.MULTILINE)
        text = f"{text.rstrip()}\n\n{owner[1]}.{field.name} = {older[1] if older else field.value}\n"
    return text


def with_current_switches(text: str) -> str:
    """Replace each group of version 0.1's switches in a configuration, if all are bound, by the current switch.

    Args:
        text: a Gin file. Files that version 0.1 did not record are returned unchanged.

    Raises:
        UserError: if some switches of a group follow the original and others do not.
    """
    # The only macro that held such a switch. It stays, although nothing uses it.
    macro = re.search(r"^LAYERWISE_EXPONENTS = ('\w+')$", text, flags=re.MULTILINE)
    if macro:
        text = text.replace("%LAYERWISE_EXPONENTS", macro[1])
    for switch in SWITCHES:
        lines = re.compile(rf"^(\w+\.{switch.owner})\.({'|'.join(switch.fields)}) = (.*)\n", flags=re.MULTILINE)
        found = {line[2]: line[3] == switch.fields[line[2]] for line in lines.finditer(text)}
        if found.keys() != switch.fields.keys():
            continue
        if len(set(found.values())) > 1:
            followed = ", ".join(name for name, as_original in found.items() if as_original)
            raise UserError(
                f"{switch.owner} was recorded by version 0.1 with some of the original's behaviour ({followed}), and "
                f"{switch.owner}.{switch.name} switches all of it: use version 0.1"
            )
        value = switch.original if all(found.values()) else switch.standard
        selector = lines.search(text)[1]
        text = f"{lines.sub('', text).rstrip()}\n\n{selector}.{switch.name} = {value}\n"
    return text


def with_current_imports(text: str) -> str:
    """Return a config.gin whose imports of version 0.1 are replaced by the current modules."""

    def moved(line: re.Match[str]) -> str:
        if line[1] not in MOVED_MODULES:
            return line[0]
        package, _, module = MOVED_MODULES[line[1]].rpartition(".")
        return f"from {package} import {module} as {line[1]}"

    return re.sub(r"^from electra_jax(?:\.tasks)? import (\w+)$", moved, text, flags=re.MULTILINE)
