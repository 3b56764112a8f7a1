"""Downstream tasks for any SeqIO or T5X user, registered by name with the settings of gin/tasks/downstream.gin."""

from typing import Any

from electra_jax import gin_config
from electra_jax.tasks.catalog import make_task
from electra_jax.tasks.registration import register
from electra_jax.tasks.vocabulary import load_vocabulary


def register_downstream_task(name: str, *, vocab_file: str, lowercase: bool | None = None, **macros: Any) -> None:
    """Registers a task of the catalogue with SeqIO under its name; `registration` tells its features and metrics.

    Args:
        name: "cola", "squad_v2", "chunk" ...
        vocab_file: BERT's vocab.txt.
        lowercase: None to take the casing from the vocabulary's record.
        macros: of gin/tasks/downstream.gin: DATA_DIR="glue", MAX_SEQ_LENGTH=128 ...

    Raises:
        UserError: no such task, macro or file.
    """
    vocabulary = load_vocabulary(vocab_file, lowercase=lowercase)
    bindings = [f"{key}={value!r}" for key, value in ({"TASK": name} | macros).items()]
    with gin_config.isolated():
        options = gin_config.build(
            "tasks.task_options.TaskOptions", ["gin/tasks/downstream.gin"], bindings, search_paths=[]
        )
    register(make_task(options, vocabulary))
