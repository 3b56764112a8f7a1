"""`electra cache`: tokenises and packs a corpus once."""

from electra_jax.config.data import cache_path
from electra_jax.config.pretraining import CacheConfig
from electra_jax.distributed.processes import print_on_leader
from electra_jax.tasks.vocabulary import load_vocabulary


def run(configuration: CacheConfig) -> None:
    """Write the cache of a corpus, or find it complete, and print where it is."""
    vocabulary = load_vocabulary(configuration.vocab_file, lowercase=configuration.lowercase)
    print_on_leader(cache_path(configuration, vocabulary, max_bytes=None))
