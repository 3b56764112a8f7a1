"""`electra vocab`: learns a tokenizer from text, or extends one by words of a text."""

import argparse
import collections
import sys
from collections.abc import Iterable, Iterator

from etils import epath

from electra_jax.config.data import open_source
from electra_jax.config.pretraining import VocabularyRun
from electra_jax.distributed.processes import print_on_leader
from electra_jax.errors import UserError
from electra_jax.files import path_of, replace_file
from electra_jax.json_files import read_text
from electra_jax.tasks.corpora.open import Corpus
from electra_jax.tasks.scripts import IDEOGRAPHIC, Casing, Survey, choose_casing, survey
from electra_jax.tasks.text_sample import Sample, sample_lines
from electra_jax.tasks.tokenizer import MAX_WORD_CHARACTERS
from electra_jax.tasks.tokenizer_file import TokenizerFile, load_tokenizer, read_of_directory
from electra_jax.tasks.tokenizer_training import ALGORITHMS, train_tokenizer
from electra_jax.tasks.unknown import measure_unknown, state_unknown
from electra_jax.tasks.vocabulary import Vocabulary, record_path, to_tokenizer_json, write_casing, write_entries
from electra_jax.tasks.vocabulary_extension import extend_wordpieces
from electra_jax.tasks.wordpieces import COVERAGE, learn_wordpieces

MEGABYTE = 10**6
# The part of the sample that is read again to measure the share of [UNK].
MEASURED_MB = 10
# The most new words that are listed by name.
SHOWN_WORDS = 10


def run(configuration: VocabularyRun, options: argparse.Namespace) -> None:
    """Read the corpus (or a whole mixture) once, print its script and the settings chosen, and write the tokenizer.

    Raises:
        UserError: if there is no text, it is tokenised already, the file's name does not fit the algorithm, a setting
            destroys the text's script, too much of the text is unknown to the tokenizer, or the file exists (models may
            depend on it).
    """
    # The vocabulary on the command line is already part of the configuration.
    del options
    base = None if configuration.extend is None else vocabulary_to_extend(configuration)
    written = files_of(configuration) if base is None else files_of_extension(configuration, base)
    check_free(written)
    corpora = [open_source(part) for part, _ in configuration.source.parts]
    for corpus in corpora:
        if corpus.tokenised:
            raise UserError(
                f"{corpus.name} holds token ids, not text: learn the vocabulary from the text that they came from"
            )
        for line in corpus.description():
            print_on_leader(line)
    corpus_name = " and ".join(corpus.name for corpus in corpora)
    sample = sample_lines(texts(corpora), max_bytes=configuration.sample_mb * MEGABYTE)
    print_on_leader(f"{corpus_name}: {size_of(sample)}{left_out(corpora)}")
    if base is None:
        vocabulary = choose_and_learn(configuration, sample.lines)
    else:
        vocabulary = extend(configuration, base, sample.lines)
    unknown = measure_unknown(sample_lines(sample.lines, max_bytes=MEASURED_MB * MEGABYTE).lines, vocabulary)
    print_on_leader(state_unknown(unknown, what=corpus_name, allow_unknown=configuration.allow_unknown))
    write(configuration, vocabulary, written, corpus_name)
    made = " learnt from" if base is None else f", those of {configuration.extend} and words of"
    print_on_leader(f"{written[0]}: {vocabulary.vocab_size} entries{made} {corpus_name}")


def choose_and_learn(configuration: VocabularyRun, lines: list[str]) -> Vocabulary:
    """Print the script of a text and the settings chosen for it, and return the vocabulary learned from it."""
    found = survey(lines)
    casing = choose_casing(
        found,
        lowercase=configuration.lowercase,
        strip_accents=configuration.strip_accents,
        wordpiece=configuration.algorithm == "wordpiece",
    )
    for line in (f"{found}", *casing.notes, *advice(found, configuration.algorithm)):
        print_on_leader(line)
    vocabulary, alphabet = learn(configuration, lines, casing)
    print_on_leader(
        f"chosen: {configuration.algorithm}, {'lower-cased' if casing.lowercase else 'capitals kept'}, "
        f"accents {'removed' if casing.strip_accents else 'kept'}{alphabet}"
    )
    return vocabulary


def vocabulary_to_extend(configuration: VocabularyRun) -> Vocabulary:
    """Read the vocabulary that EXTEND names: a file or a model directory.

    Raises:
        UserError: if there is none, it cannot be read, or a setting applies only to a vocabulary that is learned.
    """
    for name, value, unset in (
        ("ALGORITHM", configuration.algorithm, "wordpiece"),
        ("STRIP_ACCENTS", configuration.strip_accents, None),
        ("LIMIT_ALPHABET", configuration.limit_alphabet, None),
    ):
        if value != unset:
            raise UserError(f"{name} is for a vocabulary that is learned, and EXTEND keeps that of one: leave it out")
    path = path_of(configuration.extend)
    if not path.is_dir():
        return load_tokenizer(path, lowercase=configuration.lowercase)
    found = read_of_directory(path)
    if found is None:
        raise UserError(f"EXTEND {path} holds neither a vocab.txt nor a tokenizer.json: name the file")
    found.check_special_tokens()
    return found


def extend(configuration: VocabularyRun, base: Vocabulary, lines: list[str]) -> Vocabulary:
    """Return a vocabulary extended by words of a text; print how many there are, and how a model takes them over."""
    extended = extend_wordpieces(
        base, lines, vocab_size=configuration.vocab_size, min_frequency=configuration.min_frequency
    )
    shown = ", ".join(extended.words[:SHOWN_WORDS])
    num_appended = len(extended.words) - extended.num_filled
    for line in (
        f"{len(extended.words):,} new words, {extended.num_filled:,} in the place of [unusedN] and {num_appended:,} "
        f"appended, the most useful first: {shown}{', ...' if len(extended.words) > SHOWN_WORDS else ''}",
        f"a word of the text has {extended.pieces_before:.2f} pieces before, {extended.pieces_after:.2f} after",
        f"to continue a model that has {configuration.extend}: `electra pretrain` with --gin.INIT_FROM, "
        f"--gin.TOKENIZER='\"{configuration.vocab_file}\"', --gin.VOCAB_SIZE={extended.vocabulary.vocab_size} and "
        "--gin.MAP_VOCABULARY=True starts the row of each new word from the mean of its old pieces",
    ):
        print_on_leader(line)
    return extended.vocabulary


def check_free(paths: list[epath.Path]) -> None:
    """Check that no file of a tokenizer exists, except for files that a killed command left.

    A casing record without its vocab.txt, which is written last, shows that a command was killed. A tokenizer.json
    next to it is compared later with the one that is learned.

    Raises:
        UserError: if one exists.
    """
    unfinished = not paths[0].exists() and record_path(paths[0]).exists()
    for path in [] if unfinished else paths:
        if path.exists():
            raise UserError(f"{path} exists: nothing was written; name another TOKENIZER, or remove it first")


def learn(configuration: VocabularyRun, lines: list[str], casing: Casing) -> tuple[Vocabulary, str]:
    """Return the learned vocabulary, and a clause about its alphabet if one was chosen."""
    settings = {
        "vocab_size": configuration.vocab_size,
        "lowercase": casing.lowercase,
        "strip_accents": casing.strip_accents,
        "min_frequency": configuration.min_frequency,
        # In a log file the trainer's progress bars would be empty lines.
        "show_progress": sys.stderr.isatty(),
    }
    if configuration.algorithm != "wordpiece":
        return train_tokenizer(lines, algorithm=configuration.algorithm, **settings), ""
    learned = learn_wordpieces(lines, limit_alphabet=configuration.limit_alphabet, **settings)
    reason = (
        f"which make {100 * COVERAGE:.2f} % of the text" if configuration.limit_alphabet is None else "as asked for"
    )
    clause = f", an alphabet of {learned.alphabet_size:,} of {learned.num_characters:,} characters, {reason}"
    return learned.vocabulary, clause


def write(configuration: VocabularyRun, vocabulary: Vocabulary, paths: list[epath.Path], corpus_name: str) -> None:
    """Write the files of a vocabulary.

    Raises:
        UserError: if one cannot be written, or the tokenizer.json next to a vocab.txt is another tokenizer's.
    """
    path = paths[0]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(vocabulary, TokenizerFile):
            replace_file(path, vocabulary.definition)
            return
        facts = {
            "vocab_size": vocabulary.vocab_size,
            "corpus": corpus_name,
            "min_frequency": configuration.min_frequency,
            "limit_alphabet": configuration.limit_alphabet,
        }
        beside = to_tokenizer_json(vocabulary) + "\n"
        if paths[1].exists() and read_text(paths[1]) != beside:
            raise UserError(
                f"{paths[1]} exists and is another tokenizer's: nothing was written; name another TOKENIZER, or remove "
                "it first"
            )
        # The vocab.txt is written last, so that a killed command leaves no usable tokenizer.
        write_casing(path, vocabulary, facts)
        replace_file(paths[1], beside)
        write_entries(path, vocabulary)
    except OSError as error:
        raise UserError(f"the tokenizer {path} cannot be written ({error.strerror}).") from error


def size_of(sample: Sample) -> str:
    """Describe how much text there is, and how much of it is learned from."""
    seen, kept = (f"{size / MEGABYTE:,.2f} MB" for size in (sample.seen_bytes, sample.kept_bytes))
    if sample.is_whole:
        return f"{seen} of text"
    return f"{seen} of text, of which a random sample of {kept} is learned from (VOCAB_SAMPLE_MB)"


def left_out(corpora: Iterable[Corpus]) -> str:
    """Return a clause about what was left out of corpora that have been read; "" if nothing was."""
    skipped = sum((corpus.skipped for corpus in corpora), collections.Counter[str]())
    return "".join(f", {count:,} {what} skipped" for what, count in skipped.items())


def advice(found: Survey, algorithm: str) -> list[str]:
    """Return what to use instead of WordPiece for a text without spaces; to WordPiece each ideograph is a word."""
    script = next(iter(found.scripts), None)
    if found.has_spaces or algorithm != "wordpiece" or script in IDEOGRAPHIC:
        return []
    better = "'bpe', as for DNA and proteins" if script == "Latin" else "'unigram', made for languages without spaces"
    return [f"note: WordPiece reads a run of more than {MAX_WORD_CHARACTERS} letters in parts; take ALGORITHM {better}"]


def file_to_write(configuration: VocabularyRun) -> epath.Path:
    """Return the path of the tokenizer.

    Raises:
        UserError: if it is the working folder or the root, whose paths end in no name.
    """
    path = path_of(configuration.vocab_file)
    if not path.name:
        raise UserError(f"TOKENIZER is {path}, which is a folder: name the file to write, such as vocab.txt")
    return path


def files_of(configuration: VocabularyRun) -> list[epath.Path]:
    """Return the files to write: the vocab.txt and a tokenizer.json next to it, or the tokenizer.json alone.

    Raises:
        UserError: if there is no such algorithm, or the file's suffix does not fit it.
    """
    if configuration.algorithm not in ALGORITHMS:
        raise UserError(
            f"ALGORITHM is {configuration.algorithm!r}: it must be one of {', '.join(map(repr, ALGORITHMS))}"
        )
    path = file_to_write(configuration)
    is_wordpiece = configuration.algorithm == "wordpiece"
    if is_wordpiece == (path.suffix == ".json"):
        wanted = (
            "a vocab.txt and a tokenizer.json next to it: name the vocab.txt" if is_wordpiece else "a tokenizer.json"
        )
        raise UserError(f"TOKENIZER is {path}, and ALGORITHM {configuration.algorithm!r} writes {wanted}")
    if not is_wordpiece:
        return [path]
    return with_tokenizer_json(path)


def files_of_extension(configuration: VocabularyRun, base: Vocabulary) -> list[epath.Path]:
    """Return the files to write for an extended vocabulary, which are of the same kind as the original's.

    Raises:
        UserError: if the suffix of TOKENIZER is that of the other kind.
    """
    path = file_to_write(configuration)
    is_json = isinstance(base, TokenizerFile)
    if is_json != (path.suffix == ".json"):
        kind = "tokenizer.json" if is_json else "vocab.txt"
        raise UserError(f"TOKENIZER is {path}, and EXTEND {configuration.extend} is a {kind}: name a {kind}")
    return [path] if is_json else with_tokenizer_json(path)


def with_tokenizer_json(path: epath.Path) -> list[epath.Path]:
    """Return the paths of a vocab.txt and of the tokenizer.json next to it."""
    return [path, path.with_name("tokenizer.json" if path.stem == "vocab" else f"{path.stem}.tokenizer.json")]


def texts(corpora: Iterable[Corpus]) -> Iterator[str]:
    """Yield the text of each document."""
    return (document.text for corpus in corpora for unit in corpus.units for document in corpus.documents(unit))
