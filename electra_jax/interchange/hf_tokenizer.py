"""Read and write the tokenizer files of a `transformers` directory."""

import json
from pathlib import Path
from typing import Any

from electra_jax.errors import UserError
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS, build_tokenizer
from electra_jax.tasks.vocabulary import Vocabulary, is_cased, read_entries

SPECIAL_NAMES = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def read_vocabulary(directory: Path) -> Vocabulary | None:
    """Read the WordPiece vocabulary of a directory, from vocab.txt or else tokenizer.json.

    The casing comes from the first of these that states it: tokenizer_config.json, our own record vocab.json,
    tokenizer.json, the entries.

    Returns:
        None if the directory has no WordPiece vocabulary.

    Raises:
        UserError: if a file cannot be read.
    """
    tokens = entries_of(directory)
    if tokens is None:
        return None
    config = read_json(directory / "tokenizer_config.json") or {}
    normalizer = (read_json(directory / "tokenizer.json") or {}).get("normalizer") or {}
    ours = read_json(directory / "vocab.json") or {}
    lowercase = first(
        config.get("do_lower_case"), ours.get("lowercase"), normalizer.get("lowercase"), not is_cased(tokens)
    )
    strip_accents = first(
        config.get("strip_accents"), ours.get("strip_accents"), normalizer.get("strip_accents"), lowercase
    )
    return Vocabulary(tokens, bool(lowercase), bool(strip_accents))


def first(*values: Any) -> Any:
    """Return the first value that is not None."""
    return next(value for value in values if value is not None)


def entries_of(directory: Path) -> list[str] | None:
    """Read the entries in the order of their ids, those that were added later included; None if there are none.

    Raises:
        UserError: if a file cannot be read, or ids are skipped.
    """
    try:
        if (directory / "vocab.txt").is_file():
            tokens = read_entries(directory / "vocab.txt")
            added = read_json(directory / "added_tokens.json") or {}
        else:
            tokenizer = read_json(directory / "tokenizer.json")
            if tokenizer is None or tokenizer["model"].get("type", "WordPiece") != "WordPiece":
                return None
            vocab = tokenizer["model"]["vocab"]
            tokens = sorted(vocab, key=vocab.__getitem__)
            if [vocab[token] for token in tokens] != list(range(len(tokens))):
                raise UserError(f"the vocabulary of {directory} skips ids: give one with an entry for each, vocab.txt")
            added = {entry["content"]: entry["id"] for entry in tokenizer.get("added_tokens", ())}
    except (OSError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the vocabulary of {directory} cannot be read ({error!r})") from error
    for token in sorted(added, key=added.__getitem__):
        if added[token] == len(tokens):
            tokens.append(token)
    return tokens


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; return None if the file does not exist.

    Raises:
        UserError: if the file is not a JSON object.
    """
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object")
    return value


def write_tokenizer(directory: Path, vocabulary: Vocabulary, *, max_length: int) -> None:
    """Write what AutoTokenizer reads: vocab.txt, tokenizer_config.json, special_tokens_map.json, tokenizer.json."""
    from tokenizers import AddedToken, processors

    (directory / "vocab.txt").write_text(
        "".join(f"{token}\n" for token in vocabulary.tokens), encoding="utf-8", newline="\n"
    )
    specials = {name: token for name, token in SPECIAL_NAMES.items() if token in vocabulary.tokens}
    config = {
        "tokenizer_class": "ElectraTokenizer",
        "do_lower_case": vocabulary.lowercase,
        "strip_accents": vocabulary.strip_accents,
        "tokenize_chinese_chars": True,
        "model_max_length": max_length,
        **specials,
    }
    write_json(directory / "tokenizer_config.json", config)
    write_json(directory / "special_tokens_map.json", specials)
    if not set(SPECIAL_TOKENS) <= set(vocabulary.tokens):
        return
    tokenizer = build_tokenizer(
        vocabulary.tokens, lowercase=vocabulary.lowercase, strip_accents=vocabulary.strip_accents
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    cls, sep = (vocabulary.tokens.index(token) for token in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", cls), ("[SEP]", sep)],
    )
    tokenizer.save(str(directory / "tokenizer.json"))


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file in the layout of `transformers`."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
