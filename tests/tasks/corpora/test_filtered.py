"""Copies, documents of a wrong length and what is hardly text are left out and counted, whatever is read when."""

import pathlib
import pickle
import random
import sys
from typing import Any

import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.corpora import filtered as module
from electra_jax.tasks.corpora.filtered import Filters, HashIndex, filtered, letter_share, shingles
from electra_jax.tasks.corpora.open import Corpus, open_corpus


def opened(folder: pathlib.Path, **filters: Any) -> Corpus:
    corpus = open_corpus(str(folder / "*.txt"), text_format="lines", text_field="text", skip_undecodable=False)
    nothing = {"min_characters": 0, "max_characters": None, "min_letter_share": 0.0, "deduplicate": None}
    return filtered(corpus, Filters(**nothing | filters))


def read(corpus: Corpus, *units: str) -> list[str]:
    return [document.text for unit in units or corpus.units for document in corpus.documents(unit)]


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "a.txt").write_text("One.\nTwo.\nOne.\n")
    (tmp_path / "b.txt").write_text("Three.\nOne.\n")
    (tmp_path / "c.txt").write_text("Two.\nThree.\nFour.\n")
    return tmp_path


def test_the_first_of_copies_is_kept(folder: pathlib.Path) -> None:
    corpus = opened(folder, deduplicate="exact")
    for _ in range(2):
        assert read(corpus) == ["One.", "Two.", "Three.", "Four."]
        assert corpus.skipped == {"copies of documents": 4}
        corpus.skipped.clear()


def test_units_can_be_read_in_any_order_and_process(folder: pathlib.Path) -> None:
    corpus = opened(folder, deduplicate="exact")
    assert read(corpus, "c.txt", "b.txt") == ["Four.", "Three."]
    assert corpus.skipped == {"copies of documents": 3}
    assert read(pickle.loads(pickle.dumps(corpus)), "b.txt", "a.txt") == ["Three.", "One.", "Two."]
    partly = opened(folder, deduplicate="exact")
    next(partly.documents("a.txt"))
    assert read(partly, "c.txt") == ["Four."]


def test_filters_are_applied_before_copies_are_looked_for(folder: pathlib.Path) -> None:
    (folder / "d.txt").write_text("1234567890 a\nA longer line.\nशब्द और मात्रा\n")
    corpus = opened(folder, min_characters=5, max_characters=14, min_letter_share=0.5, deduplicate="exact")
    assert read(corpus) == ["Three.", "Four.", "A longer line.", "शब्द और मात्रा"]
    assert corpus.skipped == {
        "documents of under 5 characters": 5,
        "copies of documents": 1,
        "documents with under 50% letters": 1,
    }
    corpus = opened(folder, max_characters=6)
    read(corpus, "d.txt")
    assert corpus.skipped == {"documents of over 6 characters": 3}


def test_a_share_of_letters_counts_their_marks() -> None:
    assert letter_share("मा 12") == 0.5
    assert letter_share(" \n") == 0.0


def test_without_filters_the_corpus_and_its_caches_are_the_same(folder: pathlib.Path) -> None:
    corpus = open_corpus(str(folder / "*"), text_format="lines", text_field="text", skip_undecodable=False)
    assert filtered(corpus, Filters(0, None, 0.0, None)) is corpus
    prints = {opened(folder, **each).fingerprint() for each in ({}, {"min_characters": 1}, {"deduplicate": "exact"})}
    assert len(prints) == 3
    assert opened(folder, min_characters=1).size_bytes == corpus.size_bytes


def test_an_index_of_hashes_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_INDEX_KILOBYTES", 100)
    index = HashIndex()
    assert not any(index.is_copy(str(number), number) for number in range(20_000))
    assert all(index.is_copy(str(number), number + 20_000) for number in range(20_000))
    (pages,) = index._database.execute("PRAGMA page_count").fetchone()
    (size,) = index._database.execute("PRAGMA page_size").fetchone()
    assert pages * size > 3 * 100_000  # most of it is in the file


def test_near_copies_are_left_out(folder: pathlib.Path) -> None:
    pytest.importorskip("datasketch")
    draw = random.Random(0)
    words = [f"word{number}" for number in range(1000)]
    first, other = (" ".join(draw.choices(words, k=200)) for _ in range(2))
    changed = first.replace(first.split()[100], "else")
    (folder / "a.txt").write_text(f"{first}\n{other}\n{first}\n")
    (folder / "b.txt").write_text(f"{changed}\n")
    (folder / "c.txt").write_text("新しい文章をここに書きます。\n")
    corpus = opened(folder, deduplicate="near")
    for _ in range(2):
        assert read(corpus) == [first, other, "新しい文章をここに書きます。"]
        assert corpus.skipped == {"copies of documents": 1, "near-copies of documents": 1}
        corpus.skipped.clear()


def test_shingles() -> None:
    assert shingles("A b c d e F") == {"a b c d e", "b c d e f"}
    assert shingles("A b") == {"ab"}
    assert shingles("天地玄黄宇宙") == {"天地玄黄宇", "地玄黄宇宙"}


def test_bad_settings(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="DEDUPLICATE is 'all': it must be None, 'exact' or 'near'"):
        opened(folder, deduplicate="all")
    with pytest.raises(UserError, match="MAX_CHARACTERS is 3, less than MIN_CHARACTERS 5"):
        opened(folder, min_characters=5, max_characters=3)
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(UserError, match="needs the package datasketch: install electra-jax with its extra dedup"):
        read(opened(folder, deduplicate="near"))
    tokenised = open_corpus(str(folder / "*"), text_format="lines", text_field="text", skip_undecodable=False)
    tokenised.tokenised = True
    with pytest.raises(UserError, match="holds token ids, and DEDUPLICATE"):
        filtered(tokenised, Filters(1, None, 0.0, None))
