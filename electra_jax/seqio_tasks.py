"""Register this project's tasks by name, with the settings of its Gin files, for users of SeqIO, Beam and T5X."""

from typing import Any, TypeVar

from electra_jax.config import data, gin_files
from electra_jax.config.cache_checks import check_no_marks
from electra_jax.config.pretraining import CacheConfig
from electra_jax.tasks.catalog import make_task
from electra_jax.tasks.corpora.divided import divide
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.pretraining.tasks import register_pretraining_task
from electra_jax.tasks.seqio_export import register
from electra_jax.tasks.tokenizer_file import load_tokenizer

T = TypeVar("T")


def register_downstream_task(name: str, *, vocab_file: str, lowercase: bool | None = None, **macros: Any) -> None:
    """Register a task of the catalogue with SeqIO under its name; `tasks.seqio_export` lists its features and metrics.

    Args:
        name: "cola", "squad_v2", "chunk" ...
        vocab_file: BERT's vocab.txt, or any tokenizer.json.
        lowercase: None to take the casing from the vocabulary's record.
        macros: macros of gin/tasks/downstream.gin: DATA_DIR="glue", MAX_SEQ_LENGTH=128 ...

    Raises:
        UserError: if there is no such task, macro or file.
    """
    vocabulary = load_tokenizer(vocab_file, lowercase=lowercase)
    options = _build(TaskOptions, "gin/tasks/downstream.gin", {"TASK": name} | macros)
    register(make_task(options, vocabulary))


def register_corpus(name: str, *, mask_prob: float, mask_token_prob: float, **macros: Any) -> None:
    """Register a corpus for pre-training as the tasks `name` (masked) and `name + "_unmasked"`.

    Their examples are those that `electra cache` makes with the same macros, whether SeqIO reads the corpus during
    training or the workers of `seqio_cache_tasks` do, each of which takes whole units (files) of it.

    Args:
        name: letters, digits and underscores.
        mask_prob: share of the tokens to mask.
        mask_token_prob: share of the masked tokens that become [MASK].
        macros: macros of gin/runs/cache.gin: CORPUS="my-text/*.txt.gz", TOKENIZER="vocab.txt", SEQUENCE_LENGTH=128 ...

    Raises:
        UserError: if there is no such macro or file, or the corpus is empty.
    """
    cache = _build(CacheConfig, "gin/runs/cache.gin", macros)
    check_no_marks(cache)
    register_pretraining_task(
        name,
        corpus=divide(data.open_source(cache.source), sequence_length=cache.sequence_length),
        vocabulary=load_tokenizer(cache.vocab_file, lowercase=cache.lowercase),
        packing=data.packing_of(cache),
        held_out_fraction=cache.held_out_fraction,
        mask_prob=mask_prob,
        mask_token_prob=mask_token_prob,
        cache_path=None,
    )


def _build(configuration: type[T], file: str, macros: dict[str, Any]) -> T:
    bindings = [f"{key}={value!r}" for key, value in macros.items()]
    # The caller may have a Gin configuration of its own.
    with gin_files.isolated():
        return gin_files.build(configuration, [file], bindings, search_paths=[])
