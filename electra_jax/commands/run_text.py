"""Say how much text a pre-training reads, for `electra inspect`: its tokens, and its epochs of each corpus."""

import dataclasses
import itertools
import math

from electra_jax.config.data import finished_cache, is_cache, open_source, vocabulary_for
from electra_jax.config.pretraining import CorpusConfig, PretrainingRun
from electra_jax.errors import UserError
from electra_jax.tasks.pretraining.cached_blocks import record_of_cache

# The value of macros that `electra inspect` can do without.
UNNEEDED = "unneeded"


def corpus_line(configuration: PretrainingRun) -> str:
    """Return a line about a run's tokens and how often it goes through each part of its corpus."""
    shapes, steps = configuration.batch_shapes, configuration.loop.num_train_steps
    bounds = [0, *(change for change in shapes.changes if change < steps), steps]
    tokens = sum((last - first) * math.prod(shapes.at(first)) for first, last in itertools.pairwise(bounds))
    rows = shapes.num_rows(0, steps)
    return f"text of the run: {rows:,} rows, {tokens:,} tokens with padding; {epochs(configuration, rows)}"


def epochs(configuration: PretrainingRun, rows: int) -> str:
    """Return a clause about how often a number of rows goes through each part of the corpus, as far as caches tell."""
    source = configuration.cache.source
    if source.corpus is None:
        return "name CORPUS, and TOKENIZER, to learn how many epochs that is"
    total = sum(weight for _, weight in source.parts)
    try:
        counts = [(part.name, rows * weight / total, rows_of(configuration, part)) for part, weight in source.parts]
    except UserError as error:
        # The text of a run that was copied to this machine may be missing.
        return f"how many epochs that is, cannot be told: {error}"
    return ", ".join(
        f"{drawn / size:,.2f} epochs of {name}"
        if size
        else f"how many epochs of {name} that is, is known once there is its cache (`electra cache`, TOKENIZER)"
        for name, drawn, size in counts
    )


def rows_of(configuration: PretrainingRun, part: CorpusConfig) -> float:
    """Return the number of rows in an epoch of a corpus, as its cache records them; 0 if no cache does."""
    cache = dataclasses.replace(configuration.cache, source=part)
    path = str(part.corpus) if is_cache(part.corpus) else None
    if path is None and cache.vocab_file != UNNEEDED:
        path = finished_cache(cache, open_source(part), vocabulary_for(cache, configuration.encoder))
    train = record_of_cache(path).get("train", {}) if path else {}
    if configuration.packing:
        # Packed rows are nearly full.
        return train.get("tokens", 0) / cache.sequence_length
    return train.get("examples", 0)
