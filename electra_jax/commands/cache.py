"""`electra cache`: tokenises and packs a corpus once."""

from electra_jax.config.data import cache_path
from electra_jax.config.pretraining import CacheConfig
from electra_jax.monitoring.reporter import say
from electra_jax.tasks.vocabulary import load_vocabulary


def run(configuration: CacheConfig) -> None:
    """Writes a SeqIO cache, or finds it made already, and says where it is."""
    vocabulary = load_vocabulary(configuration.vocab_file, lowercase=configuration.lowercase)
    say(cache_path(configuration, vocabulary, max_bytes=None))
