"""BERT WordPiece vocabularies: reading `vocab.txt`, training one, and the SeqIO vocabulary made of it."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import seqio
from etils import epath

from electra_jax.errors import UserError
from electra_jax.files import path_of, replace_file
from electra_jax.tasks.host_tensorflow import tf
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS, build_tokenizer
from electra_jax.tasks.wordpiece_training import train_wordpieces

# "[CLS]", "[unused17]": names of the vocabulary's own, which say nothing about its casing.
_BRACKETED = re.compile(r"\[.*\]")


class WordPieceVocabulary(seqio.Vocabulary):
    """A BERT vocabulary and its casing: text to ids exactly as BERT's own tokenizer, without added tokens.

    Attributes:
      tokens: the entries of vocab.txt; a token's place is its id.
      lowercase, strip_accents: what is done to text before it is split.
      fingerprint: hash of tokens, lowercase and strip_accents; equal fingerprints give equal ids.
      tokenizer: the `tokenizers` object (gives offsets). It pickles without SeqIO or TensorFlow: hand it,
        rather than the vocabulary, to worker processes.
      cls_id, sep_id, mask_id (and pad_id, unk_id): ids of the five tokens that every vocabulary holds.
    """

    def __init__(self, tokens: Sequence[str], *, lowercase: bool, strip_accents: bool) -> None:
        """Tokens must be distinct and hold the five special ones, as `load_vocabulary` assures."""
        super().__init__()
        self.tokens = list(tokens)
        self.lowercase = lowercase
        self.strip_accents = strip_accents
        self._pad_id, self._unk_id, self.cls_id, self.sep_id, self.mask_id = map(self.tokens.index, SPECIAL_TOKENS)
        self.tokenizer = build_tokenizer(self.tokens, lowercase=lowercase, strip_accents=strip_accents)
        content = json.dumps([self.tokens, lowercase, strip_accents])
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()[:16]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the entries and the casing; the rest is rebuilt."""
        return _rebuild, (self.tokens, self.lowercase, self.strip_accents)

    def __eq__(self, other: object) -> bool:
        """SeqIO asks whether the tasks of a mixture share a vocabulary."""
        return isinstance(other, WordPieceVocabulary) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        """Consistent with equality."""
        return hash(self.fingerprint)

    @property
    def pad_id(self) -> int:
        """Id of [PAD]."""
        return self._pad_id

    @property
    def unk_id(self) -> int:
        """Id of [UNK]."""
        return self._unk_id

    @property
    def bos_id(self) -> int:
        """Id of [CLS]."""
        return self.cls_id

    @property
    def eos_id(self) -> None:
        """None: [SEP] also stands between segments, and SeqIO's decode would cut the text at the first."""
        return

    @property
    def _base_vocab_size(self) -> int:
        return len(self.tokens)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens, by all the threads that `tokenizers` may use."""
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def _encode(self, s: str) -> list[int]:
        return self.tokenizer.encode(s, add_special_tokens=False).ids

    def _decode(self, ids: Iterable[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=False)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        def encode(text: Any) -> np.ndarray:
            # Bytes in a graph, an array without dimensions outside of one.
            return np.asarray(self._encode(np.asarray(text).item().decode("utf-8")), np.int32)

        ids = tf.numpy_function(encode, [s], tf.int32)
        ids.set_shape([None])
        return ids

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        def decode(ids: np.ndarray) -> bytes:
            return self._decode(ids.tolist()).encode("utf-8")

        text = tf.numpy_function(decode, [ids], tf.string)
        text.set_shape([])
        return text


def _rebuild(tokens: list[str], lowercase: bool, strip_accents: bool) -> WordPieceVocabulary:
    return WordPieceVocabulary(tokens, lowercase=lowercase, strip_accents=strip_accents)


def load_vocabulary(vocab_file: str, *, lowercase: bool | None) -> WordPieceVocabulary:
    """Reads a BERT vocab.txt and, if there is one, the record of its casing beside it (vocab.json).

    Args:
      vocab_file: one token a line, UTF-8; the line number is the id.
      lowercase: None takes the record's word; without a record the vocabulary is cased if and only if an
        ordinary entry holds an upper-case letter. Accents are stripped as the record says, and without a
        record exactly when lower-casing (as BERT does).

    Raises:
      UserError: missing or unreadable file; a special token missing; an entry that stands twice; a record
        that is malformed or that `lowercase` contradicts.
    """
    tokens = _read_tokens(vocab_file)
    record = _read_record(vocab_file)
    if record is None:
        if lowercase is None:
            lowercase = not _is_cased(tokens)
        return WordPieceVocabulary(tokens, lowercase=lowercase, strip_accents=lowercase)
    if lowercase is not None and lowercase != record["lowercase"]:
        raise UserError(
            f"{vocab_file} was made with lowercase={record['lowercase']} (says {_record_path(vocab_file)}), "
            f"but lowercase={lowercase} was asked for; leave it unset, or train another vocabulary."
        )
    return WordPieceVocabulary(tokens, lowercase=record["lowercase"], strip_accents=record["strip_accents"])


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
) -> WordPieceVocabulary:
    """Trains a WordPiece vocabulary and writes vocab.txt and the record of its casing, each atomically.

    Args:
      documents: texts; read once, as a stream (wrap it to show how far it is).
      vocab_file: where to write; the record goes beside it with the suffix `.json`.
      vocab_size: number of entries wanted, the five special tokens included. A small corpus may give fewer.
      lowercase, strip_accents: what is done to text before it is split, now and ever after.
      min_frequency: a pair seen less often is not merged.
      limit_alphabet: at most this many single characters; text with rarer ones becomes [UNK].
      corpus_name: goes into the record.
      show_progress: whether to draw the trainer's bars, after the documents are read.

    Raises:
      UserError: no text; vocab_size too small to hold the alphabet.
    """
    tokens = train_wordpieces(
        documents,
        vocab_size=vocab_size,
        lowercase=lowercase,
        strip_accents=strip_accents,
        min_frequency=min_frequency,
        limit_alphabet=limit_alphabet,
        show_progress=show_progress,
    )
    record = {
        "lowercase": lowercase,
        "strip_accents": strip_accents,
        "vocab_size": len(tokens),
        "corpus": corpus_name,
        "min_frequency": min_frequency,
        "limit_alphabet": limit_alphabet,
    }
    path = path_of(vocab_file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The record first: killed in between, there is no vocabulary, rather than one of unknown casing.
        replace_file(_record_path(vocab_file), json.dumps(record, indent=2) + "\n")
        replace_file(path, "".join(f"{token}\n" for token in tokens))
    except OSError as error:
        raise UserError(f"the vocabulary {vocab_file} cannot be written ({error.strerror}).") from error
    return WordPieceVocabulary(tokens, lowercase=lowercase, strip_accents=strip_accents)


def _read_tokens(vocab_file: str) -> list[str]:
    try:
        text = path_of(vocab_file).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"the vocabulary {vocab_file} cannot be read ({reason}): name another, or learn one with `electra vocab`."
        ) from error
    # Not splitlines(): a vocabulary may hold entries that it takes for line ends, such as U+2028.
    tokens = [line.strip(" \t\r") for line in text.rstrip("\r\n").split("\n")]
    line_of: dict[str, int] = {}
    for number, token in enumerate(tokens, start=1):
        if token in line_of:
            raise UserError(
                f"the vocabulary {vocab_file} holds the entry {token!r} twice, "
                f"on lines {line_of[token]} and {number}; remove one."
            )
        line_of[token] = number
    missing = [token for token in SPECIAL_TOKENS if token not in line_of]
    if missing:
        raise UserError(
            f"the vocabulary {vocab_file} ({len(tokens)} lines) lacks {', '.join(missing)}; "
            f"add a line for each, or give another file."
        )
    return tokens


def _is_cased(tokens: Sequence[str]) -> bool:
    return any(token != token.lower() for token in tokens if not _BRACKETED.fullmatch(token))


def _record_path(vocab_file: str) -> epath.Path:
    return path_of(vocab_file).with_suffix(".json")


def _read_record(vocab_file: str) -> dict[str, bool] | None:
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
