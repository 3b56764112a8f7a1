"""`electra vocab` learns WordPiece, byte-level BPE or Unigram, and writes what every other command reads."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from electra_jax.cli import main
from electra_jax.errors import UserError
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.tokenizer_file import load_tokenizer
from electra_jax.tasks.tokenizer_training import train_tokenizer
from electra_jax.tasks.vocabulary import Vocabulary
from support.text_rows import text_features
from support.tokenizers import NASTY, TEXTS


def vocab(folder: Path, name: str, **macros: Any) -> int:
    text = folder / "text.txt"
    text.write_text("\n\n".join(TEXTS) + "\n", encoding="utf-8")
    bindings = {"CORPUS": str(text), "TOKENIZER": str(folder / "made" / name), "VOCAB_SIZE": 320} | macros
    return main(["vocab", *(f"--gin.{macro}={value!r}" for macro, value in bindings.items())])


def learnt(folder: Path, algorithm: str, **macros: Any) -> Vocabulary:
    assert vocab(folder, "tokenizer.json", ALGORITHM=algorithm, **macros) == 0
    return load_tokenizer(folder / "made/tokenizer.json", lowercase=None)


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_what_is_learnt_is_read(algorithm: str, tmp_path: Path) -> None:
    vocabulary = learnt(tmp_path, algorithm)
    assert 150 < vocabulary.vocab_size <= 320
    assert vocabulary.special == SPECIAL_TOKENS
    assert vocabulary.tokens[:5] == list(SPECIAL_TOKENS)
    assert vocabulary.encode("the cats sat") != vocabulary.encode("The cats sat")
    assert vocabulary.encode("é") != vocabulary.encode("e")
    # Words, not letters: "where" is in the text often enough.
    assert len(vocabulary.encode(" the what where")) < 12
    library = Tokenizer.from_file(str(tmp_path / "made/tokenizer.json"))
    pairs = [("the cat", "sat on"), ("naïf", "हिन्दी")]
    for row, pair in zip(text_features(pairs, vocabulary=vocabulary, length=99), pairs, strict=True):
        assert (library.encode(*pair).ids, library.encode(*pair).type_ids) == (row.input_ids, row.token_type_ids)
    assert library.decode(library.encode(TEXTS[1], add_special_tokens=False).ids).strip() == TEXTS[1]


def test_bytes_leave_nothing_unknown(tmp_path: Path) -> None:
    vocabulary = learnt(tmp_path, "bpe")
    tokenizer = vocabulary.tokenizer
    for text in NASTY:
        ids = vocabulary.encode(text)
        assert vocabulary.unk_id not in ids
        # NFC is all that changes.
        assert tokenizer.decode(ids, skip_special_tokens=False) == tokenizer.normalizer.normalize_str(text)


def test_bpe_is_reproducible(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        learnt(folder, "bpe")
    assert (first / "made/tokenizer.json").read_bytes() == (second / "made/tokenizer.json").read_bytes()


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_casing_is_a_choice(algorithm: str, tmp_path: Path) -> None:
    french = write(tmp_path, TEXTS[1])
    size = {"VOCAB_SIZE": 280} if algorithm == "bpe" else {"VOCAB_SIZE": 40}
    vocabulary = learnt(tmp_path, algorithm, CORPUS=str(french), LOWERCASE=True, STRIP_ACCENTS=True, **size)
    assert vocabulary.encode("L'ÉTÉ") == vocabulary.encode("l'ete")


def test_wordpiece_is_the_default_and_has_both_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert vocab(tmp_path, "vocab.txt") == 0
    # The trainer's bars are for a terminal.
    shown = capfd.readouterr()
    assert "" not in [*shown.out.splitlines(), *shown.err.splitlines()]
    made = tmp_path / "made"
    assert sorted(path.name for path in made.iterdir()) == ["tokenizer.json", "vocab.json", "vocab.txt"]
    vocabulary = load_tokenizer(made / "vocab.txt", lowercase=None)
    # Most letters of the text have no capitals, and accents are kept unless asked for otherwise.
    assert (vocabulary.lowercase, vocabulary.strip_accents, vocabulary.any_script) == (True, False, True)
    # Whichever is named, it is the same tokenizer: caches and runs of one are those of the other.
    assert load_tokenizer(made / "tokenizer.json", lowercase=None) == vocabulary
    library = Tokenizer.from_file(str(made / "tokenizer.json"))
    for text in NASTY:
        assert library.encode(text, add_special_tokens=False).ids == vocabulary.encode(text)
    assert vocab(tmp_path, "other.txt", LOWERCASE=False, STRIP_ACCENTS=False) == 0
    assert load_tokenizer(made / "other.tokenizer.json", lowercase=None) == load_tokenizer(
        made / "other.txt", lowercase=None
    )


@pytest.mark.parametrize(
    ("name", "macros", "sentence"),
    [
        ("vocab.txt", {"ALGORITHM": "bpe"}, "ALGORITHM 'bpe' writes a tokenizer.json"),
        ("tokenizer.json", {}, "ALGORITHM 'wordpiece' writes a vocab.txt and a tokenizer.json next to it: name the"),
        ("vocab.txt", {"ALGORITHM": "spm"}, "ALGORITHM is 'spm': it must be one of 'wordpiece', 'bpe', 'unigram'"),
        ("t.json", {"ALGORITHM": "bpe", "VOCAB_SIZE": 200}, "cannot hold the 256 bytes and the 5 special tokens"),
        ("t.json", {"ALGORITHM": "unigram", "VOCAB_SIZE": 20}, "cannot hold the corpus's alphabet"),
        ("there.json", {"ALGORITHM": "bpe"}, "there.json exists: nothing was written"),
        ("vocab.txt", {}, "tokenizer.json exists: nothing was written"),
        ("vocab.txt", {"TOKENIZER": ""}, "TOKENIZER (run_config.VocabularyRun.vocab_file) is '': it must be a name"),
        ("vocab.txt", {"TOKENIZER": "."}, "TOKENIZER is ., which is a folder: name the file to write"),
        ("vocab.txt", {"TOKENIZER": "/"}, "TOKENIZER is /, which is a folder: name the file to write"),
        ("vocab.txt", {"STRIP_ACCENTS": True}, "STRIP_ACCENTS is True, and would change"),
        ("vocab.txt", {"VOCAB_SIZE": 40}, "VOCAB_SIZE 40 cannot hold the text's alphabet"),
        ("vocab.txt", {"LIMIT_ALPHABET": 3}, "ALLOW_UNKNOWN=True continues anyway"),
        (
            "vocab.txt",
            {"LIMIT_ALPHABET": 0},
            "LIMIT_ALPHABET (run_config.VocabularyRun.limit_alphabet) is 0: it must be at least 1",
        ),
        (
            "vocab.txt",
            {"VOCAB_SAMPLE_MB": 0},
            "VOCAB_SAMPLE_MB (run_config.VocabularyRun.sample_mb) is 0: it must be at least 1",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    name: str, macros: dict[str, Any], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "made").mkdir()
    there = tmp_path / "made" / ("there.json" if name == "there.json" else "tokenizer.json")
    if "exists" in sentence:
        there.write_text("mine")
    assert vocab(tmp_path, name, **macros) == 2
    assert sentence in capsys.readouterr().err
    assert [path.read_text() for path in (tmp_path / "made").iterdir()] == (["mine"] if "exists" in sentence else [])


def test_it_says_what_it_found_and_what_it_chose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert vocab(tmp_path, "vocab.txt", CORPUS=str(write(tmp_path, "ガラスの門。" * 30))) == 0
    said = capsys.readouterr().out
    assert "letters: 60.0 % Katakana, 20.0 % Hiragana, 20.0 % Han; no spaces between words" in said
    assert (
        "chosen: wordpiece, capitals kept, accents kept, an alphabet of 6 of 6 characters, which make 99.99 %" in said
    )
    assert re.search(r"0\.00 % of the \d+ tokens of \S*other\.txt are \[UNK\]", said)
    assert "take ALGORITHM" not in said
    assert vocab(tmp_path, "thai.txt", CORPUS=str(write(tmp_path, "กินข้าวแล้วหรือยัง" * 30))) == 0
    assert "letters: 100.0 % Thai; no spaces between words" in (said := capsys.readouterr().out)
    assert "take ALGORITHM 'unigram'" in said
    assert vocab(tmp_path, "dna.txt", CORPUS=str(write(tmp_path, "GATTACA" * 900))) == 0
    assert "take ALGORITHM 'bpe'" in capsys.readouterr().out


def test_unknown_text_is_refused_unless_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert vocab(tmp_path, "vocab.txt", LIMIT_ALPHABET=3, ALLOW_UNKNOWN=True) == 0
    said = capsys.readouterr().out
    assert "warning: " in said
    assert "the commonest words of them: " in said
    assert load_tokenizer(tmp_path / "made/vocab.txt", lowercase=None).vocab_size == 12


def test_a_sample_is_stated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = write(tmp_path, "\n".join(f"word {number} of a longer line" for number in range(50_000)))
    assert vocab(tmp_path, "vocab.txt", CORPUS=str(text), VOCAB_SAMPLE_MB=1) == 0
    assert "1.34 MB of text, of which a random sample of 1.00 MB is learned from" in capsys.readouterr().out


def test_what_is_left_out_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = ["the cat sat", None, "the cat sat", "x"]
    text = write(tmp_path, "\n".join(json.dumps({"text": each}) for each in records))
    settings = {"CORPUS": str(text), "VOCAB_SIZE": 60, "MIN_CHARACTERS": 5, "DEDUPLICATE": "exact"}
    assert vocab(tmp_path, "vocab.txt", **settings) == 0
    said = capsys.readouterr().out
    for count in (", 1 null texts skipped", ", 1 copies of documents skipped", ", 1 documents of under 5 characters"):
        assert count in said


def write(folder: Path, text: str) -> Path:
    path = folder / "other.txt"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_a_corpus_without_text_is_refused(algorithm: str) -> None:
    settings = {"vocab_size": 300, "lowercase": False, "strip_accents": False, "min_frequency": 2}
    with pytest.raises(UserError, match="the corpus holds no text"):
        train_tokenizer(["", " \n\u3000"], algorithm=algorithm, **settings, show_progress=False)
