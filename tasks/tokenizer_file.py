"""Read any tokenizer, BERT's vocab.txt or the tokenizer.json of the `tokenizers` library, and write it again."""

import bisect
import dataclasses
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from tokenizers import Tokenizer

from electra_jax import run_directory
from electra_jax.errors import UserError
from electra_jax.files import path_of, regular, replace_file
from electra_jax.tasks import tokenizer_json
from electra_jax.tasks.encoding import encode_texts, read_with_places
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS, SpecialTokens
from electra_jax.tasks.vocabulary import Vocabulary, load_vocabulary, read_vocab_file, write_vocab_file

# Far beyond any vocabulary: a larger id is a mistake, for which no memory is allocated.
MOST_ENTRIES = 2**24

# The files of `transformers` that name the special tokens, in order of precedence.
STATING_FILES = ("tokenizer_config.json", "special_tokens_map.json")
ROLE_NAMES = {
    "cls": "classification token (cls_token)",
    "sep": "separator (sep_token)",
    "mask": "mask token (mask_token)",
}


@dataclasses.dataclass(frozen=True)
class TokenizerFile(Vocabulary):
    """Hold the tokenizer of a tokenizer.json; give the ids of text as the `tokenizers` library does.

    In text the tokens with a role are ordinary text, so no text can inject a mask or a separator. The tokenizer may
    lack a padding token (its id is then 0) and one for unknown text (its id is then the mask's).

    Attributes:
        tokens: the token of each id; "" for an unused id.
        definition: the tokenizer.json.
        named: the special tokens by their roles.
    """

    definition: str
    named: SpecialTokens

    __hash__ = Vocabulary.__hash__

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the parts of the tokenizer; the rest is rebuilt."""
        return TokenizerFile, tuple(
            getattr(self, field.name) for field in dataclasses.fields(self) if not field.kw_only
        )

    @functools.cached_property
    def _values(self) -> dict[str, Any]:
        return tokenizer_json.parse(self.definition)

    @property
    def _has_rows(self) -> bool:
        return {"cls", "sep"} <= self.special_ids.keys()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Return a hash of how text is split and rows are laid out; equal fingerprints give equal ids."""
        layout = self.between_ids if self._has_rows else None
        parts = [self._values | {"post_processor": None}, self.named, layout]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """Return the object that splits text and gives offsets. Pickle the vocabulary instead of this object.

        Raises:
            UserError: if a special token is missing.
        """
        self.check_special_tokens()
        return tokenizer_json.reader(self._values, self.named, read_mask=False)

    @functools.cached_property
    def _tokenizer_with_mask(self) -> Tokenizer:
        return tokenizer_json.reader(self._values, self.named, read_mask=True)

    @property
    def special(self) -> SpecialTokens:
        """Return the special tokens by their roles."""
        return self.named

    @property
    def shown_tokens(self) -> list[str]:
        """Return the tokens as people read them, with the spaces before words."""
        return tokenizer_json.readable(self._values, self.tokens)

    @property
    def begins_word(self) -> list[bool]:
        """Return whether each token begins a word; see `tokenizer_json.word_beginnings`.

        Raises:
            UserError: if the tokens do not show it.
        """
        found = tokenizer_json.word_beginnings(self._values, self.tokens)
        if found is None:
            raise UserError(
                f"the tokens of this {self._values['model'].get('type', '')} tokenizer do not show which of them begin "
                "a word: set MASK_UNIT to 'token', or name another TOKENIZER"
            )
        return found

    @functools.cached_property
    def between_ids(self) -> tuple[int, ...]:
        """Return the ids between two segments of a row, as in the post-processor, or else one separator."""
        ids, _ = tokenizer_json.row_of_nothing(self._values, pair=True)
        if len(ids) < 3 or (ids[0], ids[-1]) != (self.cls_id, self.sep_id):
            return (self.sep_id,)
        return tuple(ids[1:-1])

    def check_special_tokens(self) -> None:
        """Refuse to read text with an incomplete tokenizer.

        Raises:
            UserError: if there is no classification token, separator or mask.
        """
        missing = [name for role, name in ROLE_NAMES.items() if role not in self.special_ids]
        if missing:
            raise UserError(
                f"the tokenizer of {len(self.tokens)} entries has no {' and no '.join(missing)}: add it with "
                f"add_special_tokens of the library `tokenizers` and save the file again, name the token that has this "
                f"role in a {STATING_FILES[1]} next to the file, or learn another tokenizer with `electra vocab`"
            )

    @property
    def pad_id(self) -> int:
        """Return the id of the padding token, or 0."""
        return self.special_ids.get("pad", 0)

    @property
    def unk_id(self) -> int:
        """Return the id of the token for unknown text, or the mask's."""
        return self.special_ids.get("unk", self.mask_id)

    def with_rows(self, *, types: bool) -> str:
        """Return the tokenizer.json with a post-processor that lays rows out as this project does.

        It is identical to `definition` if its own post-processor does so, or if it has no tokens for a row.

        Args:
            types: whether the second segment's token type must be 1.
        """
        if not self._has_rows:
            return self.definition
        values = json.loads(self.definition)
        ids, found = tokenizer_json.row_of_nothing(self._values, pair=True)
        if ids == [self.cls_id, *self.between_ids, self.sep_id] and (not types or found[-1] == 1):
            return self.definition
        values["post_processor"] = tokenizer_json.row_processor(
            values.get("post_processor"),
            cls=(self.tokens[self.cls_id], self.cls_id),
            sep=(self.tokens[self.sep_id], self.sep_id),
            num_between=len(self.between_ids),
        )
        return json.dumps(values, indent=2, ensure_ascii=False)

    def encode_words(self, words: Sequence[str]) -> list[list[int]]:
        """Return the ids of each word of a sentence; none for a word without readable characters.

        The words are read as one text with spaces between them, because many tokenizers split a word differently after
        a space. A piece that is only the space belongs to the word after it.
        """
        text = " ".join(words)
        encoding = read_with_places(text, self.tokenizer)
        starts = list(itertools.accumulate((len(word) + 1 for word in words[:-1]), initial=0))
        pieces: list[list[int]] = [[] for _ in words]
        for index, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            first = end - len(text[start:end].lstrip()) if end > start else start
            pieces[bisect.bisect_right(starts, first) - 1].append(index)
        return pieces

    def _encode_with_mask(self, text: str) -> list[int]:
        return encode_texts([text], self._tokenizer_with_mask)[0]


def load_tokenizer(path: str | os.PathLike[str], *, lowercase: bool | None) -> Vocabulary:
    """Read any tokenizer, for reading text with it.

    Args:
        path: a vocab.txt, or a file with the suffix `.json` of the library `tokenizers`.
        lowercase: see `vocabulary.read_vocab_file`; a tokenizer.json itself says how it reads capitals.

    Raises:
        UserError: if the file cannot be read, a special token is missing, an entry of a vocab.txt occurs twice, or
            `lowercase` is given for a tokenizer.json.
    """
    if path_of(path).suffix not in (".json", ".model"):
        return load_vocabulary(os.fspath(path), lowercase=lowercase)
    vocabulary = read_tokenizer(path, lowercase=lowercase)
    try:
        vocabulary.check_special_tokens()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return vocabulary


def read_tokenizer(path: str | os.PathLike[str], *, lowercase: bool | None) -> Vocabulary:
    """Read any tokenizer, which may lack special tokens; the arguments are those of `load_tokenizer`.

    Raises:
        UserError: if the file cannot be read, or `lowercase` is given for a tokenizer.json.
    """
    suffix = path_of(path).suffix
    if suffix == ".model":
        raise UserError(
            f"{path} is a SentencePiece model: save its tokenizer.json with AutoTokenizer of transformers "
            "(save_pretrained), and name that file"
        )
    if suffix != ".json":
        return read_vocab_file(path, lowercase=lowercase)
    if lowercase is not None:
        raise UserError(f"LOWERCASE is for a vocab.txt, and {path} says itself how text is read: leave LOWERCASE unset")
    return read_tokenizer_file(path)


def read_tokenizer_file(path: str | os.PathLike[str]) -> Vocabulary:
    """Read a tokenizer.json, and the names of its special tokens in the files next to it.

    A tokenizer.json that this project made from a vocab.txt is read as that vocab.txt.

    Raises:
        UserError: if the file cannot be read, or is not a tokenizer.json.
    """
    try:
        definition = regular(path_of(path)).read_text(encoding="utf-8")
        return tokenizer_of(definition, _stated(path_of(path).parent))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"the tokenizer {path} cannot be read ({reason}): name a vocab.txt or a tokenizer.json, or learn one with "
            "`electra vocab`"
        ) from error


def tokenizer_of(definition: str, stated: Sequence[Mapping[str, Any]]) -> Vocabulary:
    """Return the vocabulary that a tokenizer.json describes.

    Args:
        definition: the file's text.
        stated: what the files next to it say about the special tokens; the first one to name a token counts.

    Raises:
        ValueError: if the text is not that of a tokenizer.
    """
    values = tokenizer_json.parse(definition)
    ids = tokenizer_json.build(values).get_vocab(with_added_tokens=True)
    last = max(ids, key=ids.__getitem__, default=None)
    if last is not None and ids[last] >= MOST_ENTRIES:
        raise ValueError(f"the token {last!r} has the id {ids[last]}, and there may be {MOST_ENTRIES} entries")
    tokens = [""] * (ids[last] + 1 if last is not None else 0)
    for token, index in ids.items():
        tokens[index] = token
    ours = tokenizer_json.reading_of_ours(values)
    if ours is not None and all(tokens) and set(SPECIAL_TOKENS) <= ids.keys():
        return Vocabulary(tokens, **ours)
    named = tokenizer_json.special_tokens(values, ids, stated)
    return TokenizerFile(tokens, *tokenizer_json.casing(values), definition, named)


def write_tokenizer(directory: str | os.PathLike[str], vocabulary: Vocabulary) -> None:
    """Write vocab.txt and its record into a directory, or tokenizer.json and the names of its special tokens."""
    folder = path_of(directory)
    if not isinstance(vocabulary, TokenizerFile):
        write_vocab_file(folder / run_directory.VOCABULARY, vocabulary)
        return
    named = {f"{role}_token": token for role, token in vocabulary.named._asdict().items() if token is not None}
    # The names first, so that a process killed in between leaves no tokenizer whose special tokens must be guessed.
    replace_file(folder / STATING_FILES[1], json.dumps(named, indent=2, ensure_ascii=False) + "\n")
    replace_file(folder / run_directory.TOKENIZER, vocabulary.definition)


def read_of_directory(directory: epath.Path) -> Vocabulary | None:
    """Read the vocabulary of a model directory; None if there is none.

    Raises:
        UserError: if it is damaged.
    """
    if (directory / run_directory.VOCABULARY).exists():
        return read_vocab_file(directory / run_directory.VOCABULARY)
    if (directory / run_directory.TOKENIZER).exists():
        return read_tokenizer_file(directory / run_directory.TOKENIZER)
    return None


def _stated(directory: epath.Path) -> list[dict[str, Any]]:
    """Return the files of a directory that name special tokens."""
    found = []
    for name in STATING_FILES:
        if (directory / name).exists():
            values = json.loads(regular(directory / name).read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise ValueError(f"{directory / name} is not a JSON object")
            found.append(values)
    return found
