"""Read, write and learn BERT WordPiece vocabularies, and turn text into their ids."""

import collections
import dataclasses
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from electra_jax.errors import UserError
from electra_jax.files import path_of, replace_file
from electra_jax.tasks.tokenizer import MAX_WORD_CHARACTERS, SPECIAL_TOKENS, build_tokenizer

# "[CLS]", "[unused17]": names of the vocabulary's own, which say nothing about its casing.
_BRACKETED = re.compile(r"\[.*\]")

_REPEATS_A_STRING = 1000


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Hold a vocabulary and its casing; give the ids of text exactly as BERT's own tokenizer does.

    A vocabulary that lacks a special token (a model may come with one) can be held, but reads no text.

    Attributes:
        tokens: the entries of vocab.txt; a token's place is its id.
        lowercase: whether text is lower-cased before it is split.
        strip_accents: whether combining marks are removed from it.
    """

    tokens: list[str]
    lowercase: bool
    strip_accents: bool

    def __hash__(self) -> int:
        """Return a hash that equal vocabularies share."""
        return hash(self.fingerprint)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the entries and the casing; the rest is rebuilt."""
        return Vocabulary, (self.tokens, self.lowercase, self.strip_accents)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Return a hash of the entries and the casing; equal fingerprints give equal ids."""
        content = json.dumps([self.tokens, self.lowercase, self.strip_accents])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """Return the object that splits text and gives offsets; it pickles: hand it to worker processes.

        Raises:
            UserError: if a special token is missing.
        """
        self.check_special_tokens()
        return build_tokenizer(self.tokens, lowercase=self.lowercase, strip_accents=self.strip_accents)

    def check_special_tokens(self) -> None:
        """Refuse to read text with a vocabulary that is not whole.

        Raises:
            UserError: if a special token is missing.
        """
        missing = [token for token in SPECIAL_TOKENS if token not in self._special_ids]
        if missing:
            raise UserError(
                f"the vocabulary of {len(self.tokens)} entries lacks {', '.join(missing)}: text cannot be read with "
                "it, only token ids"
            )

    @functools.cached_property
    def _special_ids(self) -> dict[str, int]:
        return {token: self.tokens.index(token) for token in SPECIAL_TOKENS if token in self.tokens}

    def _special_id(self, token: str) -> int:
        if token not in self._special_ids:
            self.check_special_tokens()
        return self._special_ids[token]

    @property
    def pad_id(self) -> int:
        """Return the id of [PAD]."""
        return self._special_id("[PAD]")

    @property
    def unk_id(self) -> int:
        """Return the id of [UNK]."""
        return self._special_id("[UNK]")

    @property
    def cls_id(self) -> int:
        """Return the id of [CLS]."""
        return self._special_id("[CLS]")

    @property
    def sep_id(self) -> int:
        """Return the id of [SEP]."""
        return self._special_id("[SEP]")

    @property
    def mask_id(self) -> int:
        """Return the id of [MASK]."""
        return self._special_id("[MASK]")

    @property
    def vocab_size(self) -> int:
        """Return the number of entries."""
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str], *, read_mask: bool = False) -> list[list[int]]:
        """Return the ids of each text, by all the threads that `tokenizers` may use.

        Args:
            texts: the texts.
            read_mask: whether "[MASK]" in a text is the mask; no other special token is ever read from text.
        """
        if read_mask:
            return [self._encode_with_mask(text) for text in texts]
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def _encode_with_mask(self, text: str) -> list[int]:
        first, *others = self.encode_batch(text.split("[MASK]"))
        return [*first, *(token for part in others for token in (self.mask_id, *part))]


def read_vocab_file(vocab_file: str | os.PathLike[str], *, lowercase: bool | None = None) -> Vocabulary:
    """Read a BERT vocab.txt and, if there is one, the record of its casing beside it (vocab.json).

    Args:
        vocab_file: one token a line, UTF-8; the line number is the id.
        lowercase: None takes what the record says; without a record the vocabulary is cased if and only if an ordinary
            entry holds an upper-case letter. Accents are stripped as the record says, and without a record exactly when
            lower-casing (as BERT does).

    Raises:
        UserError: if the file or its record cannot be read, or if `lowercase` contradicts the record.
    """
    tokens = read_entries(vocab_file)
    record = _read_record(vocab_file)
    if record is None:
        if lowercase is None:
            lowercase = not is_cased(tokens)
        return Vocabulary(tokens, lowercase=lowercase, strip_accents=lowercase)
    if lowercase is not None and lowercase != record["lowercase"]:
        raise UserError(
            f"{vocab_file} was made with lowercase={record['lowercase']} (says {_record_path(vocab_file)}), "
            f"but lowercase={lowercase} was asked for; leave it unset, or train another vocabulary."
        )
    return Vocabulary(tokens, lowercase=record["lowercase"], strip_accents=record["strip_accents"])


def load_vocabulary(vocab_file: str, *, lowercase: bool | None) -> Vocabulary:
    """Read a vocabulary to read text with; the arguments are those of `read_vocab_file`.

    Raises:
        UserError: as `read_vocab_file`, or if a special token is missing or an entry stands twice.
    """
    vocabulary = read_vocab_file(vocab_file, lowercase=lowercase)
    line_of: dict[str, int] = {}
    for number, token in enumerate(vocabulary.tokens, start=1):
        if token in line_of:
            raise UserError(
                f"the vocabulary {vocab_file} holds the entry {token!r} twice, "
                f"on lines {line_of[token]} and {number}; remove one."
            )
        line_of[token] = number
    missing = [token for token in SPECIAL_TOKENS if token not in line_of]
    if missing:
        raise UserError(
            f"the vocabulary {vocab_file} ({len(vocabulary.tokens)} lines) lacks {', '.join(missing)}; "
            f"add a line for each, or give another file."
        )
    return vocabulary


def write_vocab_file(
    vocab_file: str | os.PathLike[str], vocabulary: Vocabulary, facts: Mapping[str, Any] | None = None
) -> None:
    """Write vocab.txt and the record of its casing, each atomically.

    Args:
        vocab_file: where to write; the record goes beside it with the suffix `.json`.
        vocabulary: its entries and casing.
        facts: what the record shall say besides.
    """
    casing = {"lowercase": vocabulary.lowercase, "strip_accents": vocabulary.strip_accents}
    # The record first: killed in between, there is no vocabulary, rather than one of unknown casing.
    replace_file(_record_path(vocab_file), json.dumps({**casing, **(facts or {})}, indent=2) + "\n")
    replace_file(path_of(vocab_file), "".join(f"{token}\n" for token in vocabulary.tokens))


def train_vocabulary(
    documents: Iterable[str],
    *,
    vocab_file: str,
    vocab_size: int,
    lowercase: bool,
    strip_accents: bool,
    min_frequency: int,
    limit_alphabet: int,
    corpus_name: str,
    show_progress: bool,
) -> Vocabulary:
    """Train a WordPiece vocabulary and write it.

    Args:
        documents: texts; read once, as a stream (wrap it to show how far it is).
        vocab_file: where to write; see `write_vocab_file`.
        vocab_size: number of entries wanted, the five special tokens included. A small corpus may give fewer.
        lowercase: whether text is lower-cased before it is split, now and ever after.
        strip_accents: whether combining marks are removed from it.
        min_frequency: a pair seen less often is not merged.
        limit_alphabet: at most this many single characters; text with rarer ones becomes [UNK].
        corpus_name: goes into the record.
        show_progress: whether to draw the trainer's bars, after the documents are read.

    Raises:
        UserError: if there is no text, if `vocab_size` is too small to hold the alphabet, or if the file cannot be
            written.
    """
    tokens = _train_wordpieces(
        documents,
        vocab_size=vocab_size,
        lowercase=lowercase,
        strip_accents=strip_accents,
        min_frequency=min_frequency,
        limit_alphabet=limit_alphabet,
        show_progress=show_progress,
    )
    vocabulary = Vocabulary(tokens, lowercase=lowercase, strip_accents=strip_accents)
    facts = {
        "vocab_size": len(tokens),
        "corpus": corpus_name,
        "min_frequency": min_frequency,
        "limit_alphabet": limit_alphabet,
    }
    try:
        path_of(vocab_file).parent.mkdir(parents=True, exist_ok=True)
        write_vocab_file(vocab_file, vocabulary, facts)
    except OSError as error:
        raise UserError(f"the vocabulary {vocab_file} cannot be written ({error.strerror}).") from error
    return vocabulary


def read_entries(vocab_file: str | os.PathLike[str]) -> list[str]:
    """Return the entries of a vocab.txt; a line's number is its id.

    Raises:
        UserError: if the file cannot be read.
    """
    try:
        text = path_of(vocab_file).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"the vocabulary {vocab_file} cannot be read ({reason}): name another, or learn one with `electra vocab`."
        ) from error
    # Not splitlines(): a vocabulary may hold entries that it takes for line ends, such as U+2028.
    return [line.strip(" \t\r") for line in text.rstrip("\r\n").split("\n")]


def is_cased(tokens: Sequence[str]) -> bool:
    """Return whether an ordinary entry holds an upper-case letter."""
    return any(token != token.lower() for token in tokens if not _BRACKETED.fullmatch(token))


def _record_path(vocab_file: str | os.PathLike[str]) -> epath.Path:
    return path_of(vocab_file).with_suffix(".json")


def _read_record(vocab_file: str | os.PathLike[str]) -> dict[str, bool] | None:
    path = _record_path(vocab_file)
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {name: _boolean(record[name]) for name in ("lowercase", "strip_accents")}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path}, which stands beside the vocabulary, is not a record of its casing "
            f'({{"lowercase": true or false, "strip_accents": true or false}}): {error!r}.'
        ) from error


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _train_wordpieces(
    documents: Iterable[str],
    *,
    vocab_size: int,
    lowercase: bool,
    strip_accents: bool,
    min_frequency: int,
    limit_alphabet: int,
    show_progress: bool,
) -> list[str]:
    """Return the entries of a WordPiece vocabulary: the special tokens, the alphabet, then merges by frequency.

    The documents are read once, as a stream; memory holds one count per distinct word. The same text gives the same
    entries each time. The arguments are those of `train_vocabulary`.

    Raises:
        UserError: if there is no text, or if `vocab_size` is too small to hold the alphabet.
    """
    counts = _count_words(documents, lowercase=lowercase, strip_accents=strip_accents)
    if not counts:
        raise UserError("no vocabulary can be trained: the corpus holds no text.")
    # The trainer numbers the characters in the order of a randomly seeded hash table and breaks ties
    # between merges by number; naming them all beforehand makes it give the same entries every time.
    alphabet = _alphabet(counts, limit_alphabet)
    first_entries = [*SPECIAL_TOKENS, *alphabet]
    if len(first_entries) > vocab_size:
        raise UserError(
            f"vocab_size={vocab_size} cannot hold the corpus's alphabet, which takes {len(first_entries)} "
            f"entries; ask for more entries, or lower limit_alphabet (now {limit_alphabet})."
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=first_entries,
        continuing_subword_prefix="##",
        show_progress=show_progress,
    )
    tokenizer = Tokenizer(models.WordPiece({}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.train_from_iterator(_repeated(counts, set(alphabet)), trainer=trainer)
    ids = tokenizer.get_vocab()
    return sorted(ids, key=ids.__getitem__)


def _count_words(documents: Iterable[str], *, lowercase: bool, strip_accents: bool) -> collections.Counter[str]:
    tokenizer = build_tokenizer([], lowercase=lowercase, strip_accents=strip_accents)
    counts: collections.Counter[str] = collections.Counter()
    for document in documents:
        normalised = tokenizer.normalizer.normalize_str(document)
        counts.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalised))
    # A longer word is [UNK] whatever the vocabulary holds.
    return collections.Counter({w: n for w, n in counts.items() if len(w) <= MAX_WORD_CHARACTERS})


def _alphabet(counts: Mapping[str, int], limit: int) -> list[str]:
    frequency: collections.Counter[str] = collections.Counter()
    continuing: set[str] = set()
    for word, count in counts.items():
        continuing.update(word[1:])
        for character in word:
            frequency[character] += count
    kept = sorted(sorted(frequency), key=lambda character: -frequency[character])[:limit]
    return sorted(kept) + [f"##{character}" for character in sorted(kept) if character in continuing]


def _repeated(counts: Mapping[str, int], alphabet: set[str]) -> Iterator[str]:
    # A word with a character outside the alphabet is [UNK], and teaches nothing.
    for word in sorted(word for word in counts if alphabet.issuperset(word)):
        repeats, rest = divmod(counts[word], _REPEATS_A_STRING)
        for _ in range(repeats):
            yield f"{word} " * _REPEATS_A_STRING
        if rest:
            yield f"{word} " * rest
