"""Read and write the tokenizer files of a `transformers` directory."""

import json
from pathlib import Path
from typing import Any, TypedDict

from tokenizers import AddedToken

from electra_jax import json_files
from electra_jax.errors import UserError
from electra_jax.run_directory import TOKENIZER, VOCABULARY
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS, build_tokenizer
from electra_jax.tasks.tokenizer_file import STATING_FILES, TokenizerFile, tokenizer_of
from electra_jax.tasks.vocabulary import Vocabulary, is_cased, read_entries, to_tokenizer_json

ADDED = "added_tokens.json"

# The classes of `transformers` that read a vocab.txt as BERT does.
BERT_CLASSES = {f"{name}Tokenizer{fast}" for name in ("Bert", "Electra", "DistilBert") for fast in ("", "Fast")}
# The fields of tokenizer_config.json that set BERT's normalizer, by the names in tokenizer.json.
NORMALIZER_NAMES = {
    "lowercase": "do_lower_case",
    "strip_accents": "strip_accents",
    "handle_chinese_chars": "tokenize_chinese_chars",
}


class AddedEntry(TypedDict):
    """Declare the field that is read of a token that tokenizer_config.json lists as added."""

    content: str


def read_vocabulary(directory: Path) -> Vocabulary | None:
    """Read the tokenizer of a directory: its tokenizer.json, or else the vocab.txt of a tokenizer of BERT's kind.

    The casing of a vocab.txt comes from the first of these that states it: tokenizer_config.json, our own record
    vocab.json, the entries. The casing that tokenizer_config.json states also overrides that of a tokenizer.json with
    BERT's normalizer, as in `transformers`.

    Returns:
        The vocabulary; None if the directory has neither file, or if `unread` names a tokenizer of another kind.

    Raises:
        UserError: if a file cannot be read.
    """
    config = read_json(directory / "tokenizer_config.json") or {}
    if (directory / TOKENIZER).is_file():
        try:
            definition = (directory / TOKENIZER).read_text(encoding="utf-8")
            return tokenizer_of(with_stated_casing(definition, config), stated_by(directory))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"the tokenizer of {directory} cannot be read ({error})") from error
    if unread(directory) is not None:
        return None
    tokens = entries_of(directory)
    if tokens is None:
        return None
    ours = read_json(directory / "vocab.json") or {}
    lowercase = first(config.get("do_lower_case"), ours.get("lowercase"), not is_cased(tokens))
    strip_accents = first(config.get("strip_accents"), ours.get("strip_accents"), lowercase)
    vocabulary = Vocabulary(
        tokens, bool(lowercase), bool(strip_accents), any_script=bool(ours.get("any_script", False))
    )
    roles = set(SPECIAL_TOKENS)
    kept_whole = [token for token in added_tokens(directory) if token.content in set(tokens) - roles]
    if roles <= set(tokens) and not kept_whole:
        return vocabulary
    return with_stated_tokens(vocabulary, stated_by(directory), kept_whole)


def with_stated_tokens(
    vocabulary: Vocabulary, stated: list[dict[str, Any]], kept_whole: list[AddedToken]
) -> Vocabulary:
    """Give a vocabulary of BERT's kind special tokens of other names, and tokens that are never split.

    Args:
        vocabulary: the entries, and how text is read.
        stated: the contents of the directory's files that name special tokens.
        kept_whole: entries without a role that were added to the tokenizer, such as "[URL]".
    """
    tokenizer = build_tokenizer(vocabulary.tokens, **vocabulary.reading)
    named = tokenizer_of(tokenizer.to_str(), stated)
    if {"unk", "cls", "sep", "mask"} - named.special_ids.keys():
        return vocabulary
    tokenizer.model.unk_token = named.special.unk
    tokenizer.add_tokens([token for token in kept_whole if token.content not in named.special])
    return tokenizer_of(tokenizer.to_str(), stated)


def stated_by(directory: Path) -> list[dict[str, Any]]:
    """Return the contents of a directory's files that name special tokens, in order of precedence."""
    return [read_json(directory / name) or {} for name in STATING_FILES]


def unread(directory: Path) -> str | None:
    """Name the tokenizer of a directory if only `transformers` can build it; None for any other."""
    config = read_json(directory / "tokenizer_config.json") or {}
    if (directory / TOKENIZER).is_file():
        return None
    # Old directories name the class in config.json, with the model's sizes.
    name = first(config.get("tokenizer_class"), (read_json(directory / "config.json") or {}).get("tokenizer_class"), "")
    parts = [f"{key} {config[key]!r}" for key in ("word_tokenizer_type", "subword_tokenizer_type") if config.get(key)]
    parts += [f"{key} False" for key in ("tokenize_chinese_chars", "do_basic_tokenize") if config.get(key) is False]
    parts += ["never_split"] * bool(config.get("never_split"))
    if name in ("", *BERT_CLASSES) and not parts:
        return None
    return " with ".join([str(name) or "a tokenizer", *([", ".join(parts)] if parts else [])])


def stated_length(directory: Path) -> int | None:
    """Return the `model_max_length` of a directory's tokenizer, in tokens; None if it states none, or no limit."""
    length = (read_json(directory / "tokenizer_config.json") or {}).get("model_max_length")
    # Two special tokens need room, and a pair a third one. `transformers` writes a huge number if there is no limit.
    return length if type(length) is int and 4 <= length < 1 << 30 else None


def with_stated_casing(definition: str, config: dict[str, Any]) -> str:
    """Return a tokenizer.json with the casing that tokenizer_config.json states, if its normalizer is BERT's."""
    values = json.loads(definition)
    normalizer = values.get("normalizer") or {}
    if normalizer.get("type") != "BertNormalizer":
        return definition
    stated = {ours: config[theirs] for ours, theirs in NORMALIZER_NAMES.items() if config.get(theirs) is not None}
    if normalizer | stated == normalizer:
        return definition
    return json.dumps(values | {"normalizer": normalizer | stated}, ensure_ascii=False)


def first(*values: Any) -> Any:
    """Return the first value that is not None."""
    return next(value for value in values if value is not None)


def entries_of(directory: Path) -> list[str] | None:
    """Read the entries of vocab.txt in the order of their ids, including those that were added later.

    Returns:
        The entries; None if there is no vocab.txt.

    Raises:
        UserError: if a file cannot be read.
    """
    if not (directory / VOCABULARY).is_file():
        return None
    tokens = read_entries(directory / VOCABULARY)
    try:
        ids = {token: int(number) for token, number in (read_json(directory / ADDED) or {}).items()}
        ids |= {entry["content"]: int(number) for number, entry in added_entries(directory).items()}
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{directory}: tokens were added to the tokenizer with ids that are no numbers ({error}): put right "
            f"{ADDED} and tokenizer_config.json"
        ) from error
    for token in sorted(ids, key=ids.__getitem__):
        if ids[token] == len(tokens):
            tokens.append(token)
    return tokens


def added_tokens(directory: Path) -> list[AddedToken]:
    """Return the tokens that were added to a tokenizer of BERT's kind, which are never split.

    Version 5 and late releases of version 4 of `transformers` list them in tokenizer_config.json, with how each is
    found in text; earlier releases list them in added_tokens.json, and the special ones in special_tokens_map.json.

    Raises:
        UserError: if a file cannot be read.
    """
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    found: dict[str, AddedToken] = {}
    for entry in added_entries(directory).values():
        found[entry["content"]] = AddedToken(
            entry["content"], **{name: entry[name] is True for name in flags if name in entry}
        )
    extra = [file.get("additional_special_tokens") for file in stated_by(directory)]
    listed = [token for each in extra if isinstance(each, list) for token in each]
    special = [str(token.get("content") if isinstance(token, dict) else token) for token in listed]
    for token in [*(read_json(directory / ADDED) or {}), *special]:
        found.setdefault(token, AddedToken(token, special=token in special, normalized=token not in special))
    return list(found.values())


def added_entries(directory: Path) -> dict[str, dict[str, Any]]:
    """Return the tokens, by their ids, that a tokenizer_config.json lists as added.

    Raises:
        UserError: if the list has another form.
    """
    path = directory / "tokenizer_config.json"
    entries = (read_json(path) or {}).get("added_tokens_decoder") or {}
    wrong = json_files.fault_of(entries, dict[str, AddedEntry], "added_tokens_decoder")
    if wrong is not None:
        raise UserError(f"{path}: {wrong}: {json_files.REMEDY}")
    return entries


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; return None if the file does not exist.

    Raises:
        UserError: if the file is not a JSON object.
    """
    return json_files.read_json(path, dict[str, Any]) if path.is_file() else None


def write_tokenizer(
    directory: Path, vocabulary: Vocabulary, *, max_length: int, types: bool, has_types: bool
) -> list[str]:
    """Write what AutoTokenizer reads: tokenizer.json, tokenizer_config.json, special_tokens_map.json; BERT's vocab.txt.

    Args:
        directory: where to write.
        vocabulary: the model's vocabulary.
        max_length: the longest row that the model reads.
        types: whether the second text of a pair must have token type 1, as the model was trained.
        has_types: whether the model takes token types.

    Returns:
        Notes for the user.
    """
    special = vocabulary.special._asdict().items()
    lacking = [token for role, token in special if role not in vocabulary.special_ids]
    if lacking and not isinstance(vocabulary, TokenizerFile):
        return [
            f"the vocabulary lacks {', '.join(map(str, lacking))}, which AutoTokenizer would add beyond the model's "
            "table of words: no tokenizer files were written"
        ]
    specials = {f"{role}_token": token for role, token in special if role in vocabulary.special_ids}
    write_json(directory / "special_tokens_map.json", specials)
    # `transformers` 5 rebuilds tokenizers of BERT's classes from their entries, with other ids.
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", *["token_type_ids"] * has_types, "attention_mask"],
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
        **specials,
    }
    if isinstance(vocabulary, TokenizerFile):
        write_json(directory / "tokenizer_config.json", config)
        definition = vocabulary.with_rows(types=types)
        (directory / TOKENIZER).write_text(definition, encoding="utf-8", newline="")
        if definition == vocabulary.definition:
            return []
        return [f"{TOKENIZER} is the model's own but for its post_processor, which gives rows as the model reads them"]
    casing = {"do_lower_case": vocabulary.lowercase, "strip_accents": vocabulary.strip_accents}
    write_json(directory / "tokenizer_config.json", config | casing | {"tokenize_chinese_chars": True})
    (directory / VOCABULARY).write_text(
        "".join(f"{token}\n" for token in vocabulary.tokens), encoding="utf-8", newline="\n"
    )
    (directory / TOKENIZER).write_text(to_tokenizer_json(vocabulary), encoding="utf-8")
    return []


def write_json(path: Path, value: dict[str, Any] | list[Any]) -> None:
    """Write a JSON file in the layout of `transformers`."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
