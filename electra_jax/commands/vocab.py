"""`electra vocab`: learns a WordPiece vocabulary from text."""

import os

from electra_jax.config.data import open_source
from electra_jax.config.pretraining import VocabularyRun
from electra_jax.distributed.processes import print_on_leader
from electra_jax.errors import UserError
from electra_jax.tasks.vocabulary import train_vocabulary


def run(configuration: VocabularyRun) -> None:
    """Read the corpus once, and write the vocabulary with its record beside it.

    Raises:
        UserError: if there is no text, it is tokenised already, or the vocabulary exists: models may depend on it.
    """
    if os.path.exists(configuration.vocab_file):
        raise UserError(
            f"{configuration.vocab_file} exists: nothing was written; name another VOCAB_FILE, or remove it first"
        )
    corpus = open_source(configuration.source)
    if corpus.tokenised:
        raise UserError(
            f"{corpus.name} holds token ids, not text: learn the vocabulary from the text that they came from"
        )
    vocabulary = train_vocabulary(
        (document.text for unit in corpus.units for document in corpus.documents(unit)),
        vocab_file=configuration.vocab_file,
        vocab_size=configuration.vocab_size,
        lowercase=configuration.lowercase,
        strip_accents=configuration.strip_accents,
        min_frequency=configuration.min_frequency,
        limit_alphabet=configuration.limit_alphabet,
        corpus_name=corpus.name,
        show_progress=True,
    )
    print_on_leader(f"{configuration.vocab_file}: {vocabulary.vocab_size} entries learnt from {corpus.name}")
