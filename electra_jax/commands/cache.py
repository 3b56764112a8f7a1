"""`electra cache`: tokenise and pack a corpus once."""

from electra_jax.config.data import cache_path
from electra_jax.config.pretraining import CacheRun
from electra_jax.distributed.processes import print_on_leader
from electra_jax.tasks.pretraining.tfrecords import add_tfrecords
from electra_jax.tasks.tokenizer_file import load_tokenizer


def run(configuration: CacheRun) -> None:
    """Build a cache, or find it built already, and print where it is."""
    cache = configuration.cache
    vocabulary = load_tokenizer(cache.vocab_file, lowercase=cache.lowercase)
    path = cache_path(cache, vocabulary, max_bytes=None)
    if configuration.tfrecords:
        add_tfrecords(path, vocab_size=vocabulary.vocab_size)
    print_on_leader(path)
