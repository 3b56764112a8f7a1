"""Chinese whose words a segmenter's spaces mark: the tokens are those of plain text, and whole words are masked."""

import random
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.cli import main
from electra_jax.config import data, gin_files
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.data.blocks import WORD_MARK
from electra_jax.errors import UserError
from electra_jax.model.types import Tokens
from electra_jax.pretraining import corruption
from electra_jax.pretraining.mask_units import MarkedWords
from electra_jax.tasks.encoding import encode_texts, encode_with_marks
from electra_jax.tasks.pretraining import cache
from electra_jax.tasks.pretraining.cache_worker import run_job
from electra_jax.tasks.pretraining.cached_blocks import blocks_of_cache
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.vocabulary import Vocabulary, write_vocab_file

CHARACTERS = "研究生使用语言模型，。的"
VOCABULARY = Vocabulary([*SPECIAL_TOKENS, *CHARACTERS, "bert", "##s"], lowercase=True, strip_accents=False)
SEGMENTED = "研究生 使用 语言 模型 ， 的 BERTs 模型。"
# Where a token continues a word.
GOES_ON = [0, 1, 1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0]


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache._Worker, "run", lambda worker, job: run_job(worker._setup, job))


def test_marks_are_those_of_the_spaces() -> None:
    (marked,) = encode_with_marks([SEGMENTED], VOCABULARY.tokenizer)
    assert [index // WORD_MARK for index in marked] == GOES_ON
    # The tokens themselves are those of the text without the segmenter's spaces.
    (plain,) = encode_texts([SEGMENTED.replace(" BERTs ", "BERTs").replace(" ", "")], VOCABULARY.tokenizer)
    assert [index % WORD_MARK for index in marked] == plain
    assert encode_with_marks(["", "研"], VOCABULARY.tokenizer) == [[], [5]]


def write(folder: Path) -> dict[str, Any]:
    """The macros of a corpus of forty documents."""
    write_vocab_file(folder / "vocab.txt", VOCABULARY)
    documents = [" ".join(random.Random(number).choices(SEGMENTED.split(), k=30)) for number in range(40)]
    (folder / "text.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    files = {"CORPUS": str(folder / "text.txt"), "TOKENIZER": str(folder / "vocab.txt"), "CACHE_DIR": str(folder / "c")}
    return files | {"SEQUENCE_LENGTH": 32, "HELD_OUT_FRACTION": 0.1, "NUM_PROCESSES": 1}


def configured(folder: Path, **macros: Any) -> PretrainingRun:
    values = write(folder) | {"MODEL_DIR": "unread", "VOCAB_SIZE": VOCABULARY.vocab_size, "BATCH_SIZE": 4} | macros
    files = ["gin/models/tiny.gin", "gin/runs/pretrain.gin"]
    with gin_files.isolated():
        return gin_files.build(
            PretrainingRun, files, [f"{name}={value!r}" for name, value in values.items()], search_paths=[]
        )


def test_words_of_a_cache_are_masked_as_a_whole(tmp_path: Path) -> None:
    run = configured(tmp_path, WORD_MARKS=True, MASK_UNIT="word", MASK_PROB=0.3)
    opened = data.open_data(run, VOCABULARY, process_index=0, process_count=1)
    masking = run.masking_of(VOCABULARY)
    assert isinstance(masking.positions, MarkedWords)
    masked_of_two = 0
    for number in range(8):
        batch = next(iter(opened.train))
        ids_BL = batch["input_ids"]
        assert (ids_BL >= WORD_MARK).any()
        masked = corruption.mask(
            jax.random.key(number),
            Tokens(*(jnp.asarray(batch[name]) for name in ("input_ids", "token_type_ids", "attention_mask"))),
            masking,
        )
        # What the model reads, and what it is to predict, has no marks.
        assert int(jnp.max(masked.tokens.input_ids)) < VOCABULARY.vocab_size
        assert int(jnp.max(masked.masked_ids)) < VOCABULARY.vocab_size
        np.testing.assert_array_equal(corruption.original_ids(masked), ids_BL % WORD_MARK)
        hidden_BL = np.asarray(corruption.selected(masked)) > 0
        for row, hidden_L in zip(ids_BL, hidden_BL, strict=True):
            for place in np.flatnonzero(row >= WORD_MARK):
                if row[place - 1] in (VOCABULARY.cls_id, VOCABULARY.sep_id):
                    continue  # An example may begin within a word.
                # Nothing of a word is shown where another part of it is not.
                assert hidden_L[place] == hidden_L[place - 1]
                masked_of_two += int(hidden_L[place])
    assert masked_of_two > 20


def test_the_same_tokens_are_masked_alone_without_marks(tmp_path: Path) -> None:
    marked, plain = (configured(tmp_path, WORD_MARKS=value) for value in (True, False))
    of_marks, of_plain = (
        blocks_of_cache(
            data.cache_path(run.cache, VOCABULARY, max_bytes=None),
            "train",
            vocab_size=VOCABULARY.vocab_size + WORD_MARK * run.cache.word_marks,
        )
        for run in (marked, plain)
    )
    np.testing.assert_array_equal(of_marks.tokens % WORD_MARK, of_plain.tokens)
    assert of_plain.tokens.max() < VOCABULARY.vocab_size
    # In the vocabulary's own words every ideograph begins one.
    assert configured(tmp_path, MASK_UNIT="word").masking_of(VOCABULARY).word_mark is None


def test_marks_that_nobody_reads_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = configured(tmp_path, WORD_MARKS=True)
    path = data.cache_path(run.cache, VOCABULARY, max_bytes=None)
    plain = configured(tmp_path, CORPUS=path)
    with pytest.raises(UserError, match="was made with WORD_MARKS=True: set WORD_MARKS to that"):
        data.cache_path(plain.cache, VOCABULARY, max_bytes=None)
    assert data.cache_path(configured(tmp_path, CORPUS=path, WORD_MARKS=True).cache, VOCABULARY, max_bytes=None) == path
    with pytest.raises(UserError, match="WORD_MARKS is for a CORPUS, and MIXTURE_OR_TASK_NAME 'mine' has no marks"):
        configured(tmp_path, CORPUS=None, MIXTURE_OR_TASK_NAME="mine", WORD_MARKS=True)
    bindings = [f"--gin.{name}={value!r}" for name, value in (write(tmp_path) | {"WORD_MARKS": True}).items()]
    assert main(["cache", *bindings, "--gin.TFRECORDS=True"]) == 2
    assert "WORD_MARKS is for `electra pretrain`" in capsys.readouterr().err
