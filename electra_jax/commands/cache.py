"""`electra cache`: tokenise and pack a corpus once."""

import dataclasses
import sys

from electra_jax.config.cache_checks import check_no_marks, unknown_in_cache
from electra_jax.config.data import cache_path
from electra_jax.config.pretraining import CacheRun
from electra_jax.distributed import processes
from electra_jax.distributed.processes import print_on_leader
from electra_jax.tasks.pretraining.tfrecords import add_tfrecords
from electra_jax.tasks.tokenizer_file import load_tokenizer


def run(configuration: CacheRun) -> None:
    """Build a cache, or find an existing one, and print its path; for a mixture, one for each part, in order."""
    cache = configuration.cache
    if configuration.tfrecords:
        check_no_marks(cache)
    vocabulary = load_tokenizer(cache.vocab_file, lowercase=cache.lowercase)
    for source, _ in cache.source.parts:
        path = cache_path(dataclasses.replace(cache, source=source), vocabulary, max_bytes=None)
        # Scripts read the path from standard output, which must hold nothing else.
        if (stated := unknown_in_cache(path, allow_unknown=cache.allow_unknown)) and processes.leader():
            print(stated, file=sys.stderr, flush=True)
        if configuration.tfrecords:
            add_tfrecords(path, vocab_size=vocabulary.vocab_size)
        print_on_leader(path)
