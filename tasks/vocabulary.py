"""Read and write BERT WordPiece vocabularies, and turn text into their ids.

`tokenizer_file` adds the vocabularies of other tokenizers; `tokenizer_file.load_tokenizer` reads any.
"""

import dataclasses
import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from etils import epath
from tokenizers import AddedToken, Tokenizer

from electra_jax.errors import UserError
from electra_jax.files import path_of, regular, replace_file
from electra_jax.json_files import read_json
from electra_jax.tasks.encoding import encode_texts
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS, SpecialTokens, add_special_tokens, build_tokenizer

# "[CLS]", "[unused17]": the vocabulary's own names, which say nothing about its casing.
_BRACKETED = re.compile(r"\[.*\]")
# Characters with which words begin in other kinds of vocabularies; an ordinary one may also have such an entry.
_OTHER_KINDS = {"\u2581": "SentencePiece", "\u0120": "byte-level BPE"}
_MOST_MARKED = 0.2
# The prefix of a piece that continues a word, in WordPiece vocabularies.
CONTINUES = "##"


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Hold a vocabulary and its casing; give the ids of text as BERT's own tokenizer does, exactly if not `any_script`.

    A vocabulary that lacks a special token (a model may come with one) can be held, but reads no text.

    Attributes:
        tokens: the entries of vocab.txt; a token's index is its id.
        lowercase: whether text is lower-cased before it is split; None if the tokenizer is not BERT's.
        strip_accents: whether combining marks are removed from it; None if the tokenizer is not BERT's.
        any_script: whether `electra vocab`'s improvements on BERT's reading apply, see `tokenizer.build_tokenizer`.
    """

    tokens: list[str]
    lowercase: bool | None
    strip_accents: bool | None
    any_script: bool = dataclasses.field(default=False, kw_only=True)

    def __hash__(self) -> int:
        """Return a hash that equal vocabularies share."""
        return hash(self.fingerprint)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the entries and the casing; the rest is rebuilt."""
        return functools.partial(Vocabulary, any_script=self.any_script), (
            self.tokens,
            self.lowercase,
            self.strip_accents,
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """Return a hash of the entries and the casing; equal fingerprints give equal ids."""
        # Vocabularies that are read as BERT's keep the hash of versions without `any_script`.
        content = json.dumps([self.tokens, self.lowercase, self.strip_accents, *[True] * self.any_script])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """Return the object that splits text and gives offsets; it can be pickled for worker processes.

        Raises:
            UserError: if a special token is missing.
        """
        self.check_special_tokens()
        return build_tokenizer(self.tokens, **self.reading)

    @property
    def reading(self) -> dict[str, bool]:
        """Return how text is read: the arguments of `build_tokenizer` other than the entries."""
        return {
            "lowercase": bool(self.lowercase),
            "strip_accents": bool(self.strip_accents),
            "any_script": self.any_script,
        }

    @property
    def special(self) -> SpecialTokens:
        """Return the special tokens by their roles."""
        return SPECIAL_TOKENS

    @property
    def shown_tokens(self) -> list[str]:
        """Return the tokens as people read them; with spaces if the tokenizer knows the spaces between words."""
        return self.tokens

    @property
    def begins_word(self) -> list[bool]:
        """Return whether each token begins a word, as opposed to continuing that of the token before it.

        Raises:
            UserError: if the tokens of the vocabulary do not show it.
        """
        return [not token.startswith(CONTINUES) for token in self.tokens]

    @property
    def between_ids(self) -> tuple[int, ...]:
        """Return the ids between two segments of a row: one separator, or two if the tokenizer uses two."""
        return (self.sep_id,)

    def check_special_tokens(self) -> None:
        """Refuse to read text with an incomplete vocabulary.

        Raises:
            UserError: if a special token is missing.
        """
        missing = [token for role, token in self.special._asdict().items() if role not in self.special_ids]
        if missing:
            raise UserError(
                f"the vocabulary of {len(self.tokens)} entries lacks {', '.join(missing)}: text cannot be read with "
                "it, only token ids"
            )

    @functools.cached_property
    def special_ids(self) -> dict[str, int]:
        """Return the ids of the special tokens by role, without those that the vocabulary lacks."""
        return {
            role: self.tokens.index(token) for role, token in self.special._asdict().items() if token in self.tokens
        }

    def _special_id(self, role: str) -> int:
        if role not in self.special_ids:
            self.check_special_tokens()
        return self.special_ids[role]

    @property
    def pad_id(self) -> int:
        """Return the id of [PAD]."""
        return self._special_id("pad")

    @property
    def unk_id(self) -> int:
        """Return the id of [UNK]."""
        return self._special_id("unk")

    @property
    def cls_id(self) -> int:
        """Return the id of [CLS], or of the token in its role."""
        return self._special_id("cls")

    @property
    def sep_id(self) -> int:
        """Return the id of [SEP], or of the token in its role."""
        return self._special_id("sep")

    @property
    def mask_id(self) -> int:
        """Return the id of [MASK], or of the token in its role."""
        return self._special_id("mask")

    @property
    def vocab_size(self) -> int:
        """Return the number of entries."""
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens."""
        return encode_texts([text], self.tokenizer)[0]

    def encode_batch(self, texts: Sequence[str], *, read_mask: bool = False) -> list[list[int]]:
        """Return the ids of each text, using all threads that `tokenizers` may use.

        Args:
            texts: the texts.
            read_mask: whether the mask token in a text, such as "[MASK]", is read as the mask; no other token with a
                role is ever read from text.
        """
        if read_mask:
            return [self._encode_with_mask(text) for text in texts]
        return encode_texts(texts, self.tokenizer)

    def encode_words(self, words: Sequence[str]) -> list[list[int]]:
        """Return the ids of each word of a sentence; none for a word without readable characters."""
        return self.encode_batch(words)

    def _encode_with_mask(self, text: str) -> list[int]:
        first, *others = self.encode_batch(text.split("[MASK]"))
        return [*first, *(token for part in others for token in (self.mask_id, *part))]


def read_vocab_file(vocab_file: str | os.PathLike[str], *, lowercase: bool | None = None) -> Vocabulary:
    """Read a BERT vocab.txt and, if there is one, the record of its casing next to it (vocab.json).

    Args:
        vocab_file: one token a line, UTF-8; the line number is the id.
        lowercase: None takes the record's value; without a record the vocabulary is cased if and only if an ordinary
            entry has an upper-case letter. Accents are stripped as the record says, and without a record exactly when
            lower-casing (as BERT does).

    Raises:
        UserError: if the file or its record cannot be read, or `lowercase` contradicts the record.
    """
    tokens = read_entries(vocab_file)
    record = _read_record(vocab_file)
    if record is None:
        if lowercase is None:
            lowercase = not is_cased(tokens)
        return Vocabulary(tokens, lowercase=lowercase, strip_accents=lowercase)
    if lowercase is not None and lowercase != record["lowercase"]:
        raise UserError(
            f"{vocab_file} was made with lowercase={record['lowercase']} (says {record_path(vocab_file)}), "
            f"but lowercase={lowercase} was asked for; leave it unset, or train another vocabulary."
        )
    return Vocabulary(tokens, **record)


def load_vocabulary(vocab_file: str, *, lowercase: bool | None) -> Vocabulary:
    """Read a vocabulary, for reading text with it; the arguments are those of `read_vocab_file`.

    Raises:
        UserError: as `read_vocab_file`, or if a special token is missing, an entry occurs twice, or the entries are
            those of another kind of tokenizer, with which all text would be [UNK].
    """
    vocabulary = read_vocab_file(vocab_file, lowercase=lowercase)
    for mark, kind in _OTHER_KINDS.items():
        if sum(token.startswith(mark) for token in vocabulary.tokens) > _MOST_MARKED * len(vocabulary.tokens):
            raise UserError(
                f"the vocabulary {vocab_file} is one of {kind} (its words begin with {mark}), not BERT's vocab.txt: "
                "give the tokenizer.json of that tokenizer, or learn a vocabulary with `electra vocab`."
            )
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
        vocab_file: where to write; the record goes next to it with the suffix `.json`.
        vocabulary: its entries and casing.
        facts: further content of the record.
    """
    # The record first, so that a process killed in between leaves no vocabulary of unknown casing.
    write_casing(vocab_file, vocabulary, facts)
    write_entries(vocab_file, vocabulary)


def write_casing(
    vocab_file: str | os.PathLike[str], vocabulary: Vocabulary, facts: Mapping[str, Any] | None = None
) -> None:
    """Write the record of a vocabulary's casing; the arguments are those of `write_vocab_file`."""
    casing = {"lowercase": vocabulary.lowercase, "strip_accents": vocabulary.strip_accents}
    if vocabulary.any_script:
        casing["any_script"] = True
    replace_file(record_path(vocab_file), json.dumps({**casing, **(facts or {})}, indent=2) + "\n")


def write_entries(vocab_file: str | os.PathLike[str], vocabulary: Vocabulary) -> None:
    """Write vocab.txt, an entry a line."""
    replace_file(path_of(vocab_file), "".join(f"{token}\n" for token in vocabulary.tokens))


def to_tokenizer_json(vocabulary: Vocabulary) -> str:
    """Return BERT's tokenizer with a complete vocabulary as a tokenizer.json, which finds special tokens in text."""
    tokenizer = build_tokenizer(vocabulary.tokens, **vocabulary.reading)
    add_special_tokens(tokenizer, mask=AddedToken(SPECIAL_TOKENS.mask, normalized=False, special=True))
    return tokenizer.to_str(pretty=True)


def read_entries(vocab_file: str | os.PathLike[str]) -> list[str]:
    """Return the entries of a vocab.txt; a line's number is its id.

    Raises:
        UserError: if the file cannot be read.
    """
    try:
        text = regular(path_of(vocab_file)).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"the vocabulary {vocab_file} cannot be read ({reason}): name another, or learn one with `electra vocab`."
        ) from error
    # splitlines() would split at characters such as U+2028, which a vocabulary may have as entries.
    return [line.strip(" \t\r") for line in text.rstrip("\r\n").split("\n")]


def is_cased(tokens: Sequence[str]) -> bool:
    """Return whether an ordinary entry has an upper-case letter."""
    return any(token != token.lower() for token in tokens if not _BRACKETED.fullmatch(token))


def record_path(vocab_file: str | os.PathLike[str]) -> epath.Path:
    """Return the file next to a vocab.txt that records its casing."""
    return path_of(vocab_file).with_suffix(".json")


class _Casing(TypedDict):
    lowercase: bool
    strip_accents: bool
    any_script: NotRequired[bool]


def _read_record(vocab_file: str | os.PathLike[str]) -> dict[str, bool] | None:
    path = record_path(vocab_file)
    if not path.exists():
        return None
    remedy = (
        'the record of the casing of the vocabulary beside it is {"lowercase": true or false, "strip_accents": ...}'
    )
    # Records of vocabularies that are read as BERT's lack this field.
    record = {"any_script": False} | read_json(path, _Casing, remedy=remedy)
    return {name: record[name] for name in ("lowercase", "strip_accents", "any_script")}
