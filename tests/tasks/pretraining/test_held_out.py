"""A division of the text that holds out most of it is refused."""

import pathlib
import random

from electra_jax.errors import UserError
from electra_jax.tasks.corpora.open import open_corpus
from electra_jax.tasks.pretraining import cache
from electra_jax.tasks.pretraining.packing import COMPLETE, Packing
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.vocabulary import Vocabulary

LETTERS = "abcdefghij"
VOCABULARY = Vocabulary([*SPECIAL_TOKENS, *LETTERS], lowercase=False, strip_accents=False)
PACKING = Packing(length=32, one_segment_share=0.1, random_length_share=0.05, seed=1, builder=COMPLETE)


def build(folder: pathlib.Path, text: str, *, held_out_fraction: float) -> str:
    folder.mkdir()
    (folder / "text.txt").write_text(text)
    settings = {"text_format": "documents", "text_field": "text", "skip_undecodable": False}
    corpus = open_corpus(str(folder / "text.txt"), **settings)
    options = {"packing": PACKING, "num_processes": 1, "show_progress": False, "held_out_fraction": held_out_fraction}
    return cache.build_cache(corpus, VOCABULARY, cache_dir=str(folder / "c"), **options)


def is_refused(documents: int, tokens: int, *, of: int, fraction: float) -> bool:
    totals = {
        "train": {"documents": 9, "examples": 9, "tokens": of - tokens},
        "validation": {"documents": documents, "examples": documents, "tokens": tokens},
    }
    try:
        cache._check_held_out(totals, {"held_out_fraction": fraction, "corpus": "text"})
    except UserError:
        return True
    return False


def test_over_five_times_the_share_is_refused() -> None:
    assert is_refused(3, 260, of=1000, fraction=0.05)
    assert not is_refused(3, 240, of=1000, fraction=0.05)
    # The least that a small corpus can hold out is a document, unless it is most of the text.
    assert not is_refused(1, 260, of=1000, fraction=0.005)
    assert is_refused(1, 510, of=1000, fraction=0.005)
    # What is little anyway is no loss.
    assert not is_refused(2, 90, of=1000, fraction=0.005)
    assert is_refused(2, 110, of=1000, fraction=0.005)


def test_one_long_document_is_not_held_out(tmp_path: pathlib.Path) -> None:
    """Of a long document and a short one, the hash of the text chooses one to hold out."""
    refused = []
    for seed in range(5):
        text = " ".join(random.Random(seed).choices(LETTERS, k=3000)) + "\n\na b\n"
        try:
            build(tmp_path / str(seed), text, held_out_fraction=0.01)
        except UserError as error:
            refused.append(str(error))
            assert build(tmp_path / f"{seed}-0", text, held_out_fraction=0.0)
    assert 0 < len(refused) < 5
    assert "is 100% of its tokens (1 training examples are left)" in refused[0]
    assert "TEXT_FORMAT 'lines'" in refused[0]
