"""Interpret the JSON of the `tokenizers` library: which token has which role, and how text is read without them."""

import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer, decoders

from electra_jax.tasks.scripts import WITHOUT_SPACES, script_of
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS, SpecialTokens, build_tokenizer

# The names of the roles in the files that `transformers` writes next to a tokenizer.json. A language model's tokenizer
# has no classification token; its rows begin and end with its tokens for a text's beginning and end.
STATED_NAMES = SpecialTokens(
    pad=("pad_token",),
    unk=("unk_token",),
    cls=("cls_token", "bos_token"),
    sep=("sep_token", "eos_token"),
    mask=("mask_token",),
)
# The tokens that public tokenizers have in these roles, for files that do not name them.
CUSTOMARY_TOKENS = SpecialTokens(
    pad=("[PAD]", "<pad>", "<|pad|>", "<|padding|>"),
    unk=("[UNK]", "<unk>", "<|unk|>"),
    cls=("[CLS]", "<s>", "<cls>", "<|cls|>", "<|begin_of_text|>", "<|endoftext|>"),
    sep=("[SEP]", "</s>", "<sep>", "<|sep|>", "<|end_of_text|>", "<|endoftext|>"),
    mask=("[MASK]", "<mask>", "<|mask|>"),
)


def parse(definition: str) -> dict[str, Any]:
    """Return a tokenizer.json as JSON values, without truncation, padding and BPE's dropout: one text, one row of ids.

    Raises:
        ValueError: if the text is not JSON, or not that of a tokenizer.
    """
    values = json.loads(definition)
    if not isinstance(values, dict) or not isinstance(values.get("model"), dict):
        raise ValueError("it is not the JSON of a tokenizer")
    model = {name: value for name, value in values["model"].items() if name != "dropout"}
    return values | {"truncation": None, "padding": None, "model": model}


def build(values: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json.

    Raises:
        ValueError: if `tokenizers` cannot build it.
    """
    try:
        return Tokenizer.from_str(json.dumps(values))
    except BaseException as error:
        if not is_of_tokenizers(error):
            raise
        raise ValueError(str(error)) from error


def is_of_tokenizers(error: BaseException) -> bool:
    """Return whether an error was raised by `tokenizers`: a bare `Exception`, or the panic of a Rust program.

    A panic's class is not an `Exception`, and has no name by which to import it.
    """
    return type(error) is Exception or type(error).__name__ == "PanicException"


def reader(values: Mapping[str, Any], special: SpecialTokens, *, read_mask: bool) -> Tokenizer:
    """Return a tokenizer for which the tokens with a role are ordinary text.

    Tokens without a role that were added to the tokenizer, such as "[URL]", are read whole.

    Args:
        values: the result of `parse`.
        special: the tokens with a role.
        read_mask: whether the mask token in a text is read as the mask.
    """
    hidden = {token for token in special if token is not None}
    readable = {special.mask} if read_mask else set()
    added = [
        entry | {"special": entry["content"] in hidden - readable}
        for entry in values.get("added_tokens") or ()
        if entry
    ]
    if read_mask and special.mask not in {entry["content"] for entry in added}:
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        added.append({"id": _model_ids(values)[special.mask], "content": special.mask, **flags})
    steps = [values.get("pre_tokenizer"), _apart(hidden & _model_ids(values).keys())]
    tokenizer = build(
        {
            **values,
            "added_tokens": added,
            "post_processor": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [step for step in steps if step is not None]},
        }
    )
    # This is not part of the JSON, and is lost when a `Tokenizer` is pickled.
    tokenizer.encode_special_tokens = True
    return tokenizer


def row_of_nothing(values: Mapping[str, Any], *, pair: bool) -> tuple[list[int], list[int]]:
    """Return the ids and the token types of a row of one or two empty segments: those that the post-processor adds."""
    tokenizer = build(values)
    nothing = tokenizer.encode("", add_special_tokens=False)
    row = tokenizer.post_process(nothing, nothing if pair else None)
    return row.ids, row.type_ids


def row_processor(
    given: dict[str, Any] | None, *, cls: tuple[str, int], sep: tuple[str, int], num_between: int
) -> dict[str, Any]:
    """Return a post-processor for the rows `cls A sep` and `cls A sep.. B sep`, with token type 1 from B on.

    Args:
        given: the post-processor that it replaces, whose trimming of offsets is kept.
        cls, sep: the tokens and their ids.
        num_between: number of separators between A and B.
    """

    def piece(kind: str, name: str, type_id: int) -> dict[str, Any]:
        return {kind: {"id": name, "type_id": type_id}}

    first = [piece("SpecialToken", cls[0], 0), piece("Sequence", "A", 0)]
    end, last = piece("SpecialToken", sep[0], 0), piece("SpecialToken", sep[0], 1)
    template = {
        "type": "TemplateProcessing",
        "single": [*first, end],
        "pair": [*first, *[end] * num_between, piece("Sequence", "B", 1), last],
        "special_tokens": {name: {"id": name, "ids": [index], "tokens": [name]} for name, index in (cls, sep)},
    }
    kept = [step for step in (given or {}).get("processors", [given]) if step and step["type"] == "ByteLevel"]
    if given and given["type"] == "RobertaProcessing":
        names = ("add_prefix_space", "trim_offsets")
        kept = [{"type": "ByteLevel", "use_regex": True, **{name: given[name] for name in names}}]
    return {"type": "Sequence", "processors": [*kept, template]} if kept else template


def special_tokens(
    values: Mapping[str, Any], tokens: Mapping[str, int], stated: Iterable[Mapping[str, Any]]
) -> SpecialTokens:
    """Return the tokens with a role.

    The tokens that the post-processor puts around a text take precedence, then those named in the files next to the
    tokenizer.json, then customary ones.

    Args:
        values: the result of `parse`.
        tokens: id by token.
        stated: tokenizer_config.json and special_tokens_map.json, as far as they exist.
    """
    by_id = {index: token for token, index in tokens.items()}
    ids, _ = row_of_nothing(values, pair=False)
    found: dict[str, str | None] = dict(zip(("cls", "sep"), map(by_id.get, ids), strict=True)) if len(ids) == 2 else {}
    unknown = values["model"].get("unk_token")
    if values["model"].get("unk_id") is not None:
        unknown = by_id.get(values["model"]["unk_id"])
    for role in SpecialTokens._fields:
        said = [_content(file.get(name)) for name in getattr(STATED_NAMES, role) for file in stated]
        candidates = [found.get(role), unknown if role == "unk" else None, *said, *getattr(CUSTOMARY_TOKENS, role)]
        found[role] = next((token for token in candidates if token in tokens), None)
    return SpecialTokens(**found)


def casing(values: Mapping[str, Any]) -> tuple[bool, bool] | tuple[None, None]:
    """Return whether a WordPiece tokenizer lower-cases and strips accents; None and None for any other tokenizer."""
    normalizer = values.get("normalizer") or {}
    if values["model"].get("type", "WordPiece") != "WordPiece" or normalizer.get("type") != "BertNormalizer":
        return None, None
    lowercase, strip_accents = normalizer["lowercase"], normalizer["strip_accents"]
    return lowercase, lowercase if strip_accents is None else strip_accents


def reading_of_ours(values: Mapping[str, Any]) -> dict[str, bool] | None:
    """Return how a tokenizer.json that this project made from a vocab.txt reads text; None for any other.

    Returns:
        The arguments of `build_tokenizer` other than the entries.
    """
    for choices in itertools.product((True, False), repeat=3):
        reading = dict(zip(("lowercase", "strip_accents", "any_script"), choices, strict=True))
        ours = json.loads(build_tokenizer([], **reading).to_str())
        same = all(ours[part] == values.get(part) for part in ("normalizer", "pre_tokenizer"))
        model = values["model"] | {"vocab": {}}
        added = {entry["content"] for entry in values["added_tokens"]}
        if same and model == ours["model"] and added <= set(SPECIAL_TOKENS):
            return reading
    return None


def readable(values: Mapping[str, Any], tokens: Sequence[str]) -> list[str]:
    """Return tokens as text: the bytes of a byte-level tokenizer as characters, SentencePiece's "▁" as a space."""
    decoder = values.get("decoder") or {}
    kinds = {step["type"] for step in decoder.get("decoders", [decoder]) if step}
    if "ByteLevel" in kinds:
        from_bytes = decoders.ByteLevel()
        return [from_bytes.decode([token]) for token in tokens]
    return [token.replace("▁", " ") for token in tokens] if "Metaspace" in kinds else list(tokens)


def word_beginnings(values: Mapping[str, Any], tokens: Sequence[str]) -> list[bool] | None:
    """Return whether each token begins a word; None if the tokens do not show it.

    A prefix for continuing a word ("##") decides if the model has one. Otherwise a token begins a word if a space
    precedes it, or if its first character is punctuation, a symbol, or of a script without spaces.

    Args:
        values: the result of `parse`.
        tokens: the token of each id.
    """
    model = values["model"]
    if continues := model.get("continuing_subword_prefix"):
        return [not token.startswith(continues) for token in tokens]
    shown = readable(values, tokens)
    if list(tokens) == shown or model.get("end_of_word_suffix"):
        return None
    added = {entry["content"] for entry in values.get("added_tokens") or ()}
    return [
        token in added or not text or text[0].isspace() or _stands_alone(text[0])
        for token, text in zip(tokens, shown, strict=True)
    ]


def _stands_alone(character: str) -> bool:
    """Return whether a character is not part of the word before it; one with only some of its bytes may be."""
    if character == "\ufffd":
        return False
    return unicodedata.category(character)[0] in "PS" or script_of(character) in WITHOUT_SPACES


def _apart(tokens: Iterable[str]) -> dict[str, Any] | None:
    """Return a pre-tokenizer after which no piece of text spells one of these tokens; None if there are none.

    A Unigram model that has "<mask>" among its pieces would otherwise find it in text. The token's first character is
    separated.
    """
    spelled = sorted(f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in tokens if len(token) > 1)
    if not spelled:
        return None
    return {"type": "Split", "pattern": {"Regex": "|".join(spelled)}, "behavior": "Isolated", "invert": False}


def _model_ids(values: Mapping[str, Any]) -> dict[str, int]:
    """Return the id of each piece of the model, without the tokens that were added to it."""
    vocab = values["model"]["vocab"]
    return vocab if isinstance(vocab, dict) else {piece: index for index, (piece, _) in enumerate(vocab)}


def _content(token: Any) -> Any:
    """Return the text of a token that is given as a string or as an object."""
    return token.get("content") if isinstance(token, dict) else token
