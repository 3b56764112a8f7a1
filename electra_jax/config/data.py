"""Make the vocabulary and the batches that a run's configuration names."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh

from electra_jax.config.cache_checks import (
    check_marks_of,
    check_masking_of_corpus,
    check_no_marks,
    check_vocabulary_of,
    unknown_in_blocks,
    unknown_in_cache,
    unknown_in_stream,
)
from electra_jax.config.pretraining import CacheConfig, CorpusConfig, PretrainingRun
from electra_jax.data.batches import Batch, BatchIterator, BlockBatches, evaluation_batches
from electra_jax.data.blocks import TokenBlocks
from electra_jax.data.mixture import PERIOD, WeightedBlocks, concatenated, rows_of_period
from electra_jax.distributed import processes
from electra_jax.distributed.processes import print_on_leader
from electra_jax.errors import UserError
from electra_jax.files import path_of
from electra_jax.model.config import EncoderConfig
from electra_jax.runtime import user_cache
from electra_jax.tasks.corpora.divided import divide, divide_as_before
from electra_jax.tasks.corpora.filtered import Filters, filtered
from electra_jax.tasks.corpora.open import Corpus, open_corpus
from electra_jax.tasks.original import choice
from electra_jax.tasks.pretraining.cache import build_cache, find_cache
from electra_jax.tasks.pretraining.cache_worker import largest_size
from electra_jax.tasks.pretraining.cached_blocks import blocks_of_cache
from electra_jax.tasks.pretraining.packing import Packing
from electra_jax.tasks.pretraining.tfrecords import add_tfrecords
from electra_jax.tasks.tokenizer_file import load_tokenizer
from electra_jax.tasks.vocabulary import Vocabulary
from electra_jax.training import sharding

# Readable names for corpora whose own name says little.
CORPORA = {"embedded": "the docstrings of the installed Python packages"}

# A share of a mixture that differs from its weight by more than this fraction is reported.
_ROUNDED = 0.1


class PretrainingData(NamedTuple):
    """Hold the data that a run reads.

    Attributes:
        name: a readable name of the source.
        kind: the reader of the data; a checkpoint's place in the data is valid for this reader only.
        fingerprint: a text that differs if the examples do, as far as is known without reading them.
        train: endless batches of the training split.
        held_out: starts one pass over the validation split, in the same order each time; the pass is empty if no text
            is held out.
        vocabulary: maps the token ids to tokens.
        epochs: returns how often a number of updates have gone through the corpus, or through each part of a mixture;
            None for a stream, whose end is not known.
    """

    name: str
    kind: str
    fingerprint: str
    train: BatchIterator
    held_out: Callable[[], Iterator[Batch]]
    vocabulary: Vocabulary
    epochs: Callable[[int], list[float]] | None


def vocabulary_for(cache: CacheConfig, encoder: EncoderConfig) -> Vocabulary:
    """Read the vocabulary of a model.

    Raises:
        UserError: if the vocabulary cannot be read, or has another size than the model.
    """
    vocabulary = load_tokenizer(cache.vocab_file, lowercase=cache.lowercase)
    if vocabulary.vocab_size != encoder.vocab_size:
        raise UserError(
            f"{cache.vocab_file} has {vocabulary.vocab_size} entries and the model has {encoder.vocab_size}: set "
            f"--gin.VOCAB_SIZE={vocabulary.vocab_size}, or name the vocabulary that belongs to the model"
        )
    return vocabulary


def open_source(source: CorpusConfig) -> Corpus:
    """Open the corpus that a configuration names.

    Raises:
        UserError: if CORPUS is not set, or the corpus is not found, not readable or empty.
    """
    if source.corpus is None:
        raise UserError("CORPUS is not set: bind it, for example --gin.CORPUS='\"embedded\"' or a glob of text files")
    if source.is_mixture:
        raise UserError(f"CORPUS is the mixture {source.name}, and one corpus is wanted here: name one of its parts")
    filters = Filters(
        min_characters=source.min_characters,
        max_characters=source.max_characters,
        min_letter_share=source.min_letter_share,
        deduplicate=source.deduplicate,
    )
    corpus = open_corpus(
        source.corpus,
        text_format=source.text_format,
        text_field=source.text_field,
        skip_undecodable=source.skip_undecodable,
    )
    return filtered(corpus, filters)


def packing_of(cache: CacheConfig) -> Packing:
    """Return how the documents of a cache become examples."""
    return Packing(
        length=cache.sequence_length,
        one_segment_share=cache.one_segment_share,
        random_length_share=cache.random_length_share,
        seed=cache.seed,
        builder=choice.example_builder(cache.example_building),
        word_marks=cache.word_marks,
    )


def is_cache(corpus: object) -> bool:
    """Return whether CORPUS is the directory of a cache, of `electra cache` or of SeqIO."""
    return isinstance(corpus, str) and (path_of(corpus) / "COMPLETED").exists()


def cache_path(cache: CacheConfig, vocabulary: Vocabulary, *, max_bytes: int | None) -> str:
    """Return the directory of the tokenised corpus, which is built first if it does not exist.

    Args:
        cache: the corpus and how it is tokenised.
        vocabulary: the vocabulary of `cache.vocab_file`.
        max_bytes: the size of the largest corpus that is tokenised; None for no limit.

    Raises:
        UserError: if the corpus is larger than that, empty or unreadable, or it is a cache of another vocabulary.
    """
    if is_cache(cache.source.corpus):
        check_vocabulary_of(str(cache.source.corpus), vocabulary)
        check_marks_of(str(cache.source.corpus), word_marks=cache.word_marks)
        return str(cache.source.corpus)
    corpus = open_source(cache.source)
    if max_bytes is not None and corpus.size_bytes > max_bytes:
        raise UserError(
            f"{corpus.name} is {corpus.size_bytes / 1e9:.1f} GB: tokenise it once with `electra cache` and the same "
            "--gin bindings, then start this run again (or raise CacheConfig.max_auto_cache_bytes)"
        )
    return earlier_cache(cache, corpus, vocabulary) or build_cache(
        divide(corpus, sequence_length=cache.sequence_length),
        vocabulary,
        num_processes=cache.num_processes or os.cpu_count() or 1,
        show_progress=True,
        **made_how(cache),
    )


def made_how(cache: CacheConfig) -> dict[str, Any]:
    """Return the arguments that `find_cache` and `build_cache` share, other than the corpus and the vocabulary."""
    return {
        "cache_dir": cache.cache_dir or str(user_cache() / "examples"),
        "packing": packing_of(cache),
        "held_out_fraction": cache.held_out_fraction,
    }


def finished_cache(cache: CacheConfig, corpus: Corpus, vocabulary: Vocabulary) -> str | None:
    """Return the directory of the cache of an open corpus; None if there is none."""
    divided = divide(corpus, sequence_length=cache.sequence_length)
    return earlier_cache(cache, corpus, vocabulary) or find_cache(divided, vocabulary, **made_how(cache))


def earlier_cache(cache: CacheConfig, corpus: Corpus, vocabulary: Vocabulary) -> str | None:
    """Return the directory of the cache that an earlier version made of an open corpus; None if there is none.

    It is read unchanged, because checkpoints hold a place in it. The first versions divided no documents, and later
    ones none of a small corpus.
    """
    earlier = (find_cache(each, vocabulary, **made_how(cache)) for each in (corpus, divide_as_before(corpus)))
    return next((found for found in earlier if found), None)


def cache_for_run(run: PretrainingRun, source: CorpusConfig, vocabulary: Vocabulary) -> str:
    """Return the directory of a run's tokenised corpus (see `cache_path`), and print how much of it is [UNK].

    Args:
        run: the run.
        source: its corpus, or one part of its mixture.
        vocabulary: the run's vocabulary.

    Raises:
        UserError: as `cache_path` and `unknown_in_cache`.
    """
    cache = dataclasses.replace(run.cache, source=source)
    path = cache_path(cache, vocabulary, max_bytes=cache.max_auto_cache_bytes)
    if stated := unknown_in_cache(path, allow_unknown=cache.allow_unknown):
        print_on_leader(stated)
    return path


def open_data(
    run: PretrainingRun, vocabulary: Vocabulary, *, process_index: int, process_count: int
) -> PretrainingData:
    """Open the data that a run reads; a small corpus is tokenised first.

    A corpus is read in random order from its memory-mapped cache, packed on the fly if `packing` is set, and masked on
    the device. A named task or mixture is read through SeqIO, from its cache if it has one; with MASKING "task" it
    draws its own masks, example by example.

    Raises:
        UserError: if there is no such corpus or task, the corpus is too large to tokenise without being asked, or
            MASKING is "task" and the source is a corpus.
    """
    share: dict[str, Any] = {
        "batch_size": run.batch_size,
        "process_index": process_index,
        "process_count": process_count,
    }
    if run.mixture_or_task_name is not None:
        if run.cache.source.corpus is not None:
            raise UserError("CORPUS and MIXTURE_OR_TASK_NAME are both set: a run reads one of them")
        return stream_data(run, run.mixture_or_task_name, vocabulary, share=share)
    check_masking_of_corpus(run)
    return corpus_data(run, vocabulary, share=share)


def corpus_data(run: PretrainingRun, vocabulary: Vocabulary, *, share: dict[str, Any]) -> PretrainingData:
    """Return batches of a corpus or a mixture of corpora, each of which is tokenised first.

    The held-out text of a mixture is that of all its parts, each with its own held-out share.

    Args:
        run: names the corpora.
        vocabulary: the run's vocabulary.
        share: the batch size, this process's index, and the number of processes.

    Raises:
        UserError: as `cache_path`, `unknown_in_cache` and `unknown_in_blocks`.
    """
    source, length = run.cache.source, run.cache.sequence_length
    train: list[WeightedBlocks] = []
    held_out: list[TokenBlocks] = []
    for part, weight in source.parts:
        path = cache_for_run(run, part, vocabulary)
        of_train, of_held_out = (
            blocks_of_cache(
                path,
                split,
                vocab_size=largest_size(vocabulary.vocab_size, word_marks=run.cache.word_marks),
                cache_dir=run.cache.cache_dir,
            )
            for split in ("train", "validation")
        )
        if stated := unknown_in_blocks(path, of_train, vocabulary, allow_unknown=run.cache.allow_unknown):
            print_on_leader(stated)
        train.append(WeightedBlocks(str(part.corpus), of_train, weight))
        held_out.append(of_held_out)
    validation = concatenated(held_out) if source.is_mixture else held_out[0]
    if not len(validation):
        print_on_leader("no text is held out: the run is not evaluated while it trains")
    batches = BlockBatches(
        train if source.is_mixture else train[0].blocks,
        sequence_length=length,
        seed=run.seed,
        packed=run.packing,
        shapes=run.batch_shapes,
        **share,
    )
    if source.is_mixture:
        state_epochs(run, train, batches)
    return PretrainingData(
        CORPORA.get(str(source.name), str(source.name)),
        f"{'mixture of ' if source.is_mixture else ''}{'packed blocks' if run.packing else 'blocks'}",
        fingerprint_of_blocks(train, validation),
        batches,
        lambda: evaluation_batches(validation, sequence_length=length, **share) if len(validation) else iter(()),
        vocabulary,
        batches.epochs_after,
    )


def fingerprint_of_blocks(train: Sequence[WeightedBlocks], validation: TokenBlocks) -> str:
    """Return a text that differs if the examples of a run or the weights of its mixture do."""
    if len(train) == 1:
        blocks = train[0].blocks
        return f"{len(blocks)} and {len(validation)} examples with checksum {blocks.checksum():08x}"
    parts = (f"{part.weight:g} x {len(part.blocks)} with checksum {part.blocks.checksum():08x}" for part in train)
    return f"{', '.join(parts)}, and {len(validation)} examples"


def state_epochs(run: PretrainingRun, train: Sequence[WeightedBlocks], batches: BlockBatches) -> None:
    """Print the share of each part of a mixture, and how often the run goes through it."""
    num_rows = run.batch_shapes.num_rows(0, run.loop.num_train_steps)
    weights = [part.weight for part in train]
    for part, rows, epochs in zip(train, rows_of_period(weights), batches.epochs(num_rows), strict=True):
        share, meant = rows / PERIOD, part.weight / sum(weights)
        rounded = f" (its weight says {meant:.2g}, and no share is finer than 1 in {PERIOD:,})"
        print_on_leader(
            f"{part.name}: {share:.1%} of the rows{rounded if abs(share - meant) > _ROUNDED * meant else ''}, "
            f"{len(part.blocks):,} examples, {epochs:.2f} epochs in {run.loop.num_train_steps:,} steps"
        )


def share_data(run: PretrainingRun, vocabulary: Vocabulary, mesh: Mesh) -> PretrainingData:
    """Open this process's share of the data.

    The leader tokenises a corpus first; the other processes find its cache, or, on another machine, make their own.

    Raises:
        UserError: if there is no such corpus, or the processes found different text or vocabularies.
    """
    index, count = sharding.process_share(mesh)
    with processes.leader_first():
        data = open_data(run, vocabulary, process_index=index, process_count=count)
    processes.check_same_everywhere(
        "the data", {"the vocabulary": vocabulary.fingerprint, "the kind": data.kind, "the text": data.fingerprint}
    )
    return data


def register_corpus_tasks(run: PretrainingRun, vocabulary: Vocabulary) -> str:
    """Register the SeqIO tasks that read the run's corpus from its cache; return the name of the one without masks.

    A small corpus is tokenised first, and its cache gets TFRecords.

    Raises:
        UserError: as `open_data`.
    """
    # Loads SeqIO and TensorFlow.
    from electra_jax.tasks.pretraining.tasks import UNMASKED_SUFFIX, register_pretraining_task

    check_masking_of_corpus(run)
    if run.cache.source.is_mixture:
        raise UserError(
            f"CORPUS is the mixture {run.cache.source.name}, and SeqIO has its own: make a cache of each part with "
            "`electra cache` and register a mixture of their tasks as MIXTURE_OR_TASK_NAME"
        )
    check_no_marks(run.cache)
    path = cache_for_run(run, run.cache.source, vocabulary)
    add_tfrecords(path, vocab_size=vocabulary.vocab_size)
    name = Path(path).name
    register_pretraining_task(
        name,
        corpus=None,
        vocabulary=vocabulary,
        packing=packing_of(run.cache),
        held_out_fraction=run.cache.held_out_fraction,
        mask_prob=run.mask_prob,
        mask_token_prob=run.mask_token_prob,
        cache_path=path,
    )
    return name + UNMASKED_SUFFIX


def stream_data(
    run: PretrainingRun, mixture_or_task_name: str, vocabulary: Vocabulary, *, share: dict[str, Any]
) -> PretrainingData:
    """Return batches of a SeqIO task or mixture.

    Args:
        run: determines the length of examples and whether the task or the device draws masks.
        mixture_or_task_name: its registered name; if the device draws masks, its variant without masks is read.
        vocabulary: the run's vocabulary.
        share: the batch size, this process's index, and the number of processes.

    Raises:
        UserError: if there is no such task or mixture; and as `unknown_in_stream`.
    """
    # Load SeqIO and TensorFlow, which a run that reads a cache does not need.
    from electra_jax.tasks.pretraining.streams import StreamBatches, is_cached, stream_evaluation_batches
    from electra_jax.tasks.pretraining.tasks import UNMASKED_SUFFIX, feature_lengths

    name = mixture_or_task_name + (UNMASKED_SUFFIX if run.masking == "device" else "")
    lengths = feature_lengths(run.cache.sequence_length, mask_prob=run.mask_prob if run.masking == "task" else None)
    task = {"use_cached": is_cached(name), "feature_lengths": lengths, **share}
    train = StreamBatches(name, split="train", seed=run.seed, **task)
    print_on_leader(unknown_in_stream(name, train, vocabulary, allow_unknown=run.cache.allow_unknown))
    return PretrainingData(
        name,
        f"stream of {name}",
        name,
        train,
        lambda: stream_evaluation_batches(name, split="validation", **task),
        vocabulary,
        None,
    )
