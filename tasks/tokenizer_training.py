"""Learn a tokenizer from text: byte-level BPE, or Unigram as in SentencePiece. `wordpieces` learns BERT's kind."""

from collections.abc import Iterable, Iterator
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from electra_jax.errors import UserError
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS, UNKNOWN, add_special_tokens
from electra_jax.tasks.tokenizer_file import TokenizerFile, tokenizer_of

ALGORITHMS = ("wordpiece", "bpe", "unigram")


def train_tokenizer(
    documents: Iterable[str],
    *,
    algorithm: str,
    vocab_size: int,
    lowercase: bool,
    strip_accents: bool,
    min_frequency: int,
    show_progress: bool,
) -> TokenizerFile:
    """Learn a tokenizer of byte-level BPE or Unigram.

    BPE reads all bytes, so that no text is unknown to it; the same text yields the same tokenizer each time. Unigram
    knows the characters of the text, after NFKC; its trainer's sums depend on the order of a randomly seeded hash
    table, so that a few entries differ from run to run.

    Args:
        documents: texts; read once, as a stream.
        algorithm: "bpe" or "unigram".
        vocab_size: number of entries, including the five special tokens. A small corpus may yield fewer.
        lowercase: whether text is lower-cased before it is split.
        strip_accents: whether combining marks are removed from it.
        min_frequency: for BPE: a pair that occurs less often is not merged.
        show_progress: whether to draw the trainer's progress bars.

    Raises:
        UserError: if there is no text, or `vocab_size` is too small to hold every byte or character.
    """
    lines = _NonEmpty(line for document in documents for line in document.split("\n"))
    learn = {"bpe": _learn_bpe, "unigram": _learn_unigram}[algorithm]
    tokenizer = learn(lines, vocab_size, min_frequency, show_progress, _casing_steps(lowercase, strip_accents))
    if not lines.seen:
        raise UserError("no tokenizer can be trained: the corpus holds no text.")
    # As for RoBERTa's and ModernBERT's mask, the space before it belongs to the token that it replaces.
    add_special_tokens(tokenizer, mask=AddedToken(SPECIAL_TOKENS.mask, normalized=False, special=True, lstrip=True))
    return tokenizer_of(tokenizer.to_str(pretty=True) + "\n", [])


class _NonEmpty:
    """Iterate over lines that are not blank, and remember whether there were any."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines, self.seen = lines, False

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            if line.strip():
                self.seen = True
                yield line


def _casing_steps(lowercase: bool, strip_accents: bool) -> list[Any]:
    steps = [normalizers.Lowercase()] if lowercase else []
    # Composed again, because Korean would otherwise fall apart.
    return [*steps, normalizers.NFD(), normalizers.StripAccents(), normalizers.NFC()] if strip_accents else steps


def _learn_bpe(
    lines: Iterable[str], vocab_size: int, min_frequency: int, show_progress: bool, casing: list[Any]
) -> Tokenizer:
    """Learn a tokenizer in the shape of ModernBERT's: NFC, then bytes."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    least = len(alphabet) + len(SPECIAL_TOKENS)
    if vocab_size < least:
        raise UserError(
            f"VOCAB_SIZE {vocab_size} cannot hold the {len(alphabet)} bytes and the {len(SPECIAL_TOKENS)} special "
            f"tokens: ask for more than {least}"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), *casing])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=alphabet,
        show_progress=show_progress,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def _learn_unigram(
    lines: Iterable[str], vocab_size: int, min_frequency: int, show_progress: bool, casing: list[Any]
) -> Tokenizer:
    """Learn a tokenizer in the shape of XLM-R's and DeBERTaV3's: SentencePiece's NFKC, and "▁" for a space."""
    del min_frequency  # Unigram keeps the pieces that make the text likeliest.
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), *casing, normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS), unk_token=UNKNOWN, show_progress=show_progress
    )
    try:
        tokenizer.train_from_iterator(lines, trainer)
    except Exception as error:  # `tokenizers` raises nothing more specific.
        if "not large enough" not in str(error):
            raise
        raise UserError(
            f"VOCAB_SIZE {vocab_size} cannot hold the corpus's alphabet: ask for more entries, or learn byte-level "
            "BPE (ALGORITHM 'bpe'), which needs none"
        ) from error
    return tokenizer
