"""Tiny tokenizers in the shapes of public ones, and texts on which tokenizers differ."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

NASTY = [
    "",
    " \t\n\r ",
    "The cats sat on the mat, and it was there's.",
    "E\u0301 e\u0301\u0323 e\u0323\u0301 n\u0303 \u1112\u1161\u11ab",
    "👩‍👩‍👧 🇫🇷 👍🏽 a😀b ❤️",
    "ภาษาไทยไม่มีช่องว่าง น้ำ",
    "हिन्दी क्षत्रिय में मात्राएँ",
    "العربيّة مُشكَّلة ﷺ",
    "我是一个学生。a我b是c",
    "한국어 ㅎㅏㄴ 가각",
    "ΟΔΥΣΣΕΥΣ ΣΑΣ ΣΑΣ. Σ",
    "\ue000 a\uf8ffb \U000f0000",
    "a\x00b a\x07b a\u200bb a\u00adb a\ufffdb a\ufeffb",
    "one\rtwo\r\nthree\u2028four\u0085five",
    "a" * 150,
    "pneumono" * 40,
    "ガ ｶﾞ ① ﬁ Ａ ² ǆ İ ß",
    "  two  spaces   three",
]

SIZE = 400

TEXTS = [
    "The cats sat on the mat, and it was there's; the dog sat on the log.",
    "Le garçon naïf a mangé où l'été était chaud.",
    "ΟΔΥΣΣΕΥΣ και Οδυσσεύς στη θάλασσα.",
    "हिन्दी में मात्राएँ होती हैं। ภาษาไทยไม่มีช่องว่าง",
    "我是一个学生。 한국어 문장입니다. العربية جميلة",
    "what where when who how which that this these those one two three four five",
    "Ann works in New York. Bob Smith lives in Paris, France, and works at Acme Corp.",
] * 3


def tokenizer_json(shape: str) -> str:
    """Return the tokenizer.json of one of `SHAPES`."""
    return _definition(shape)


@functools.cache
def _definition(shape: str) -> str:
    tokenizer = SHAPES[shape]()
    # All of one size: models of it share their compiled programs.
    tokenizer.add_tokens([f"[unused{number}]" for number in range(2, 2 + SIZE - tokenizer.get_vocab_size())])
    return tokenizer.to_str()


def write_tokenizer_json(folder: Path, shape: str, **beside: dict[str, Any]) -> Path:
    """Write tokenizer.json, and the files `beside` it by their names without suffix."""
    path = folder / "tokenizer.json"
    path.write_text(tokenizer_json(shape), encoding="utf-8")
    for name, values in beside.items():
        (folder / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    return path


def roberta() -> Tokenizer:
    tokenizer = _byte_level(["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True, normalized=False)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def modernbert() -> Tokenizer:
    """Return a tokenizer of which the special tokens are added after those of the model, and spaces are tokens."""
    tokenizer = _byte_level(["<|endoftext|>", "<|padding|>"])
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens([AddedToken(text, normalized=True) for text in ("|||IP_ADDRESS|||", "   ", "  ")])
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, lstrip=token == "[MASK]") for token in _BERT_SPECIAL]
    )
    tokenizer.add_tokens(["[unused0]", "[unused1]"])
    _template(tokenizer, "[CLS]", "[SEP]")
    return tokenizer


def xlm_roberta() -> Tokenizer:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = _unigram([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")], special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def deberta_v3() -> Tokenizer:
    steps = [normalizers.Strip(), normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer = _unigram(steps, ["[PAD]", "[CLS]", "[SEP]", "[UNK]"])
    tokenizer.add_special_tokens([AddedToken("[MASK]", normalized=False, special=True)])
    _template(tokenizer, "[CLS]", "[SEP]")
    return tokenizer


def albert() -> Tokenizer:
    quotes = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    steps = [*quotes, normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    tokenizer = _unigram(steps, ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"])
    _template(tokenizer, "[CLS]", "[SEP]")
    return tokenizer


def bert() -> Tokenizer:
    """Return BERT's tokenizer as the library `tokenizers` has it, which is not quite the original's."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=_BERT_SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    _template(tokenizer, "[CLS]", "[SEP]")
    return tokenizer


_BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SHAPES: dict[str, Callable[[], Tokenizer]] = {
    make.__name__: make for make in (roberta, modernbert, xlm_roberta, deberta_v3, albert, bert)
}


def _byte_level(special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def _unigram(steps: list[Any], special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    unknown = next(token for token in special if "unk" in token.lower())
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token=unknown, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def _template(tokenizer: Tokenizer, cls: str, sep: str) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (cls, sep)],
    )
