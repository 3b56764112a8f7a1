"""The rows from which a model's new tokens start: those of the pieces as which its own tokenizer reads them."""

from pathlib import Path

from electra_jax.checkpoints.vocabulary_rows import counted, pieces_by_token
from electra_jax.files import path_of
from electra_jax.tasks.vocabulary import Vocabulary, write_vocab_file
from electra_jax.tasks.vocabulary_extension import extend_wordpieces
from support.finetuned_model import TOKENS


def test_words_that_were_added_start_from_the_mean_of_their_pieces(tmp_path: Path) -> None:
    old = Vocabulary(TOKENS, lowercase=True, strip_accents=True)
    write_vocab_file(tmp_path / "vocab.txt", old)
    slots = [row for row, token in enumerate(TOKENS) if token.startswith("[unused")]
    text = ["the mats ran home", "the mats"]
    new = extend_wordpieces(old, text, vocab_size=old.vocab_size + 1, min_frequency=2)
    assert list(new.words) == ["mats"]
    assert new.vocabulary.tokens[slots[0]] == "mats"
    pieces_V = pieces_by_token(path_of(tmp_path), new.vocabulary, map_vocabulary=True)
    assert pieces_V[slots[0]] == [TOKENS.index("mat"), TOKENS.index("##s")]
    others = [row for row in range(len(pieces_V)) if row != slots[0]]
    assert [pieces_V[row] for row in others] == [[row] for row in others]
    assert counted(pieces_V) == (
        f"rows of the vocabulary: {len(others)} of {len(pieces_V)} by token, 1 as the mean of their pieces, 0 new"
    )
