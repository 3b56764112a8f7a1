"""Words of a domain in the [unusedN] entries of a vocabulary and after its last one."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from electra_jax.cli import main
from electra_jax.errors import UserError
from electra_jax.tasks.tokenizer_file import TokenizerFile, load_tokenizer, tokenizer_of
from electra_jax.tasks.tokenizer_training import train_tokenizer
from electra_jax.tasks.vocabulary import Vocabulary, write_vocab_file
from electra_jax.tasks.vocabulary_extension import extend_wordpieces

TOKENS = [
    *("[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("the", "co", "##vi", "##d", "##s", "long", "##er", "t", "##h", "##e", "."),
]
BERT = Vocabulary(TOKENS, lowercase=True, strip_accents=True)
# covid: 3 pieces, 4 times; longer: 2 pieces, 5 times; covids: 4 pieces, twice; the: an entry; żż: unknown.
TEXT = ["Covid covid the LONGER longer.", "covid longer covids the the", "covid longer longer covids żż żż", "ths"]


def in_json() -> TokenizerFile:
    """The same vocabulary as `transformers` writes it."""
    tokenizer = Tokenizer(models.WordPiece({token: row for row, token in enumerate(TOKENS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    found = tokenizer_of(tokenizer.to_str(), [])
    assert isinstance(found, TokenizerFile)
    return found


@pytest.mark.parametrize("base", [BERT, in_json()], ids=["vocab.txt", "tokenizer.json"])
def test_the_words_that_save_the_most_pieces_fill_the_slots_first(base: Vocabulary) -> None:
    found = extend_wordpieces(base, TEXT, vocab_size=len(TOKENS) + 1, min_frequency=2)
    # Saved: covid 4 x 2, covids 2 x 3, longer 5 x 1, zz 2 x 1, but ths is too rare.
    assert (list(found.words), found.num_filled) == (["covid", "covids", "longer"], 2)
    assert found.vocabulary.tokens == [TOKENS[0], "covid", "covids", *TOKENS[3:], "longer"]
    assert found.vocabulary.encode("COVID covids longer") == [1, 2, len(TOKENS)]
    # All else is read as before.
    for text in ("the cove.", "longs covidx", "[MASK] [unused0]"):
        assert found.vocabulary.encode(text) == base.encode(text)
    # 18 words: covid 4, covids 2, longer 5, the 3, "." 1, zz 2 of 2 characters, ths 1 of 3 pieces.
    assert found.pieces_before == pytest.approx((12 + 8 + 10 + 3 + 1 + 4 + 3) / 18)
    assert found.pieces_after == pytest.approx((4 + 2 + 5 + 3 + 1 + 4 + 3) / 18)
    again = extend_wordpieces(base, TEXT, vocab_size=len(TOKENS) + 9, min_frequency=2)
    assert list(again.words) == ["covid", "covids", "longer", "zz"]
    assert again.vocabulary.vocab_size == len(TOKENS) + 2
    assert base.unk_id not in again.vocabulary.encode("zz żż")


def test_characters_that_are_unknown_are_added_and_runs_of_signs_are_not() -> None:
    """An ideograph is a word of one character, which no piece of a vocabulary without it saves."""
    text = ["the \u2500\u2500\u253c\u2500 covid 犬 🙂🙂 the 犬 \u2500\u2500\u253c\u2500 covid → 🙂🙂 →"] * 2
    found = extend_wordpieces(BERT, text, vocab_size=len(TOKENS) + 9, min_frequency=2)
    assert list(found.words) == ["covid", "→", "犬"]
    # Six words, twice: the has a piece, covid has 3, and four are [UNK], of 4, 1, 2 and 1 characters.
    assert found.pieces_before == pytest.approx((1 + 4 + 3 + 2 + 2 + 2) / 6)
    assert found.pieces_after == pytest.approx((1 + 4 + 1 + 1 + 2 + 1) / 6)


def test_slots_alone_keep_the_size() -> None:
    found = extend_wordpieces(BERT, TEXT, vocab_size=len(TOKENS), min_frequency=2)
    assert list(found.words) == ["covid", "covids"]
    assert found.vocabulary.vocab_size == len(TOKENS)


def test_no_place_no_word_and_no_wordpiece_are_refused() -> None:
    for size in (len(TOKENS) - 1, 5):
        with pytest.raises(UserError, match=f"has {len(TOKENS)} entries, 2 of them .*set it to {len(TOKENS)} to fill"):
            extend_wordpieces(BERT, TEXT, vocab_size=size, min_frequency=2)
    full = Vocabulary(["[PAD]", *TOKENS[3:]], True, True)
    with pytest.raises(UserError, match=r"0 of them \[unusedN\]; set it to more than 16 to append"):
        extend_wordpieces(full, TEXT, vocab_size=16, min_frequency=2)
    with pytest.raises(UserError, match="no word of the text is read in pieces 2 times or more"):
        extend_wordpieces(BERT, ["the the"], vocab_size=99, min_frequency=2)
    settings = {"vocab_size": 300, "lowercase": False, "strip_accents": False, "min_frequency": 2}
    for algorithm in ("bpe", "unigram"):
        other = train_tokenizer(TEXT * 9, algorithm=algorithm, **settings, show_progress=False)
        with pytest.raises(UserError, match="words are added to WordPiece alone: learn a tokenizer from the text"):
            extend_wordpieces(other, TEXT, vocab_size=400, min_frequency=2)


def extend(folder: Path, source: Path, target: str, **macros: object) -> int:
    text = folder / "text.txt"
    text.write_text("\n\n".join(TEXT) + "\n", encoding="utf-8")
    values = {"CORPUS": str(text), "TOKENIZER": str(folder / target), "VOCAB_SIZE": 19} | macros
    return main(["vocab", "--extend", str(source), *(f"--gin.{name}={value!r}" for name, value in values.items())])


def test_the_command_writes_what_it_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_vocab_file(tmp_path / "vocab.txt", BERT)
    assert extend(tmp_path, tmp_path / "vocab.txt", "new/vocab.txt") == 0
    said = capsys.readouterr().out
    assert (
        "3 new words, 2 in the place of [unusedN] and 1 appended, the most useful first: covid, covids, longer" in said
    )
    assert "a word of the text has 2.28 pieces before, 1.22 after" in said
    assert "--gin.VOCAB_SIZE=19 and --gin.MAP_VOCABULARY=True starts the row of each new word from the mean of" in said
    written = load_tokenizer(tmp_path / "new/vocab.txt", lowercase=None)
    assert written == extend_wordpieces(BERT, TEXT, vocab_size=19, min_frequency=2).vocabulary
    assert load_tokenizer(tmp_path / "new/tokenizer.json", lowercase=None) == written
    # A model directory of a tokenizer.json.
    model = tmp_path / "model"
    model.mkdir()
    (model / "tokenizer.json").write_text(in_json().definition)
    assert extend(tmp_path, model, "json/tokenizer.json") == 0
    assert load_tokenizer(tmp_path / "json/tokenizer.json", lowercase=None).tokens == written.tokens
    capsys.readouterr()
    for source, target, macros, sentence in (
        (tmp_path / "new", "vocab.json", {}, f"EXTEND {tmp_path / 'new'} is a vocab.txt: name a vocab.txt"),
        (model, "a/vocab.txt", {}, f"EXTEND {model} is a tokenizer.json: name a tokenizer.json"),
        (
            tmp_path / "json" / "..",
            "b/vocab.txt",
            {"ALGORITHM": "bpe"},
            "ALGORITHM is for a vocabulary that is learned",
        ),
        (tmp_path / "absent.txt", "c/vocab.txt", {}, "absent.txt cannot be read"),
        (tmp_path / "new", "new/vocab.txt", {}, "vocab.txt exists: nothing was written"),
        (tmp_path / "new", "d/vocab.txt", {"VOCAB_SIZE": 18}, "VOCAB_SIZE 18 leaves no place"),
    ):
        assert extend(tmp_path, source, target, **macros) == 2
        assert sentence in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert extend(tmp_path, tmp_path / "empty", "e/vocab.txt") == 2
    assert "holds neither a vocab.txt nor a tokenizer.json: name the file" in capsys.readouterr().err
