"""`electra vocab`: learns a tokenizer from text."""

from collections.abc import Iterator

from etils import epath

from electra_jax.config.data import open_source
from electra_jax.config.pretraining import VocabularyRun
from electra_jax.distributed.processes import print_on_leader
from electra_jax.errors import UserError
from electra_jax.files import path_of, replace_file
from electra_jax.tasks.corpora.open import Corpus
from electra_jax.tasks.tokenizer_training import ALGORITHMS, train_tokenizer
from electra_jax.tasks.vocabulary import to_tokenizer_json, train_vocabulary


def run(configuration: VocabularyRun) -> None:
    """Read the corpus once, and write the tokenizer.

    Raises:
        UserError: if there is no text, it is tokenised already, the file's name does not fit the algorithm, or a file
            exists: models may depend on it.
    """
    written = files_of(configuration)
    for path in written:
        if path.exists():
            raise UserError(f"{path} exists: nothing was written; name another TOKENIZER, or remove it first")
    corpus = open_source(configuration.source)
    if corpus.tokenised:
        raise UserError(
            f"{corpus.name} holds token ids, not text: learn the vocabulary from the text that they came from"
        )
    is_wordpiece = configuration.algorithm == "wordpiece"
    # BERT's custom, which other tokenizers do not have.
    lowercase, strip_accents = (
        is_wordpiece if value is None else value for value in (configuration.lowercase, configuration.strip_accents)
    )
    settings = {
        "vocab_size": configuration.vocab_size,
        "lowercase": lowercase,
        "strip_accents": strip_accents,
        "min_frequency": configuration.min_frequency,
        "show_progress": True,
    }
    if is_wordpiece:
        vocabulary = train_vocabulary(
            texts(corpus),
            vocab_file=str(written[0]),
            limit_alphabet=configuration.limit_alphabet,
            corpus_name=corpus.name,
            **settings,
        )
        replace_file(written[1], to_tokenizer_json(vocabulary) + "\n")
    else:
        vocabulary = train_tokenizer(texts(corpus), path=written[0], algorithm=configuration.algorithm, **settings)
    print_on_leader(f"{written[0]}: {vocabulary.vocab_size} entries learnt from {corpus.name}")


def files_of(configuration: VocabularyRun) -> list[epath.Path]:
    """Return the files that are written: the vocab.txt and a tokenizer.json beside it, or the tokenizer.json alone.

    Raises:
        UserError: if there is no such algorithm, or the file's suffix does not fit it.
    """
    if configuration.algorithm not in ALGORITHMS:
        raise UserError(
            f"ALGORITHM is {configuration.algorithm!r}: it must be one of {', '.join(map(repr, ALGORITHMS))}"
        )
    path = path_of(configuration.vocab_file)
    is_wordpiece = configuration.algorithm == "wordpiece"
    if is_wordpiece == (path.suffix == ".json"):
        wanted = (
            "a vocab.txt and a tokenizer.json beside it: name the vocab.txt" if is_wordpiece else "a tokenizer.json"
        )
        raise UserError(f"TOKENIZER is {path}, and ALGORITHM {configuration.algorithm!r} writes {wanted}")
    if not is_wordpiece:
        return [path]
    return [path, path.with_name("tokenizer.json" if path.stem == "vocab" else f"{path.stem}.tokenizer.json")]


def texts(corpus: Corpus) -> Iterator[str]:
    """Yield the text of each document."""
    return (document.text for unit in corpus.units for document in corpus.documents(unit))
