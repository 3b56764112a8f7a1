"""Text of any alphabet goes through `electra vocab` and `electra cache` whole: hardly an [UNK], and every character."""

import collections
import random
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from electra_jax.cli import main
from electra_jax.data.blocks import open_blocks
from electra_jax.tasks.pretraining import cache
from electra_jax.tasks.pretraining.cache_worker import run_job
from electra_jax.tasks.tokenizer_file import load_tokenizer
from electra_jax.tasks.unknown import count_unknown
from electra_jax.tasks.vocabulary import Vocabulary
from support.command_line import FILES, WORDS
from support.finetuned_model import write_tuned

DRAW = random.Random(0)
IDEOGRAPHS = [chr(0x4E00 + number) for number in range(1500)]
# A text of each, and whether its words have spaces between them.
TEXTS = {
    "german": ("Die Straße führt über größere Hügel zum Fluß Öl Äpfel süß Mädchen Übung", True),
    "spanish": ("El niño comió piñas mañana pasó qué año corazón pingüino Él está aquí", True),
    "vietnamese": ("Tiếng Việt có nhiều dấu thanh ở mỗi âm tiết của những người nói nó", True),
    "turkish": ("Işık ılık İstanbul'da çok güzel günler yaşadık ağır kapıyı dışarı Şimdi", True),
    "russian": ("Съешь ещё этих мягких французских булок да выпей же чаю Ёлка йод", True),
    "greek": ("Ο Οδυσσεύς ταξίδεψε στη θάλασσα ΣΑΣ ἄνθρωπος εἰμί ψυχῇ ΰ ΐ", True),
    "arabic": ("العربيّةُ جميلةٌ مُشكَّلة كتاب أحمد إلى آخر مؤمن شيء", True),
    "hebrew": ("שָׁלוֹם עִבְרִית ספר בית הַמֶּלֶךְ יום", True),
    "hindi": ("हिन्दी में मात्राएँ होती हैं क्षत्रिय ज़मीन कृपया श्री विद्या", True),
    "korean": ("한국어 문장입니다 그리고 값싼 닭고기를 좋아해요 뷁", True),
    "thai": ("กินข้าว แล้ว หรือยัง ภาษาไทย ไม่มี ช่องว่าง น้ำ ที่ เมื่อวาน", False),
    "japanese": ("ガラスの 門を 開ける プログラム パソコン ぽけっと 東京 です。 ヴァイオリン づつ", False),
    "chinese": (" ".join("".join(DRAW.choices(IDEOGRAPHS, k=3)) for _ in range(2000)), False),
    "dna": (" ".join("".join(DRAW.choices("ACGT", k=60)) for _ in range(20)), False),
}
MACROS: dict[str, dict[str, Any]] = {"chinese": {"VOCAB_SIZE": 4000}}
OTHER_ALGORITHMS = [("thai", "unigram"), ("japanese", "unigram"), ("dna", "bpe"), ("hindi", "bpe"), ("korean", "bpe")]


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenise in this process, which has all the modules already."""
    monkeypatch.setattr(cache._Worker, "run", lambda worker, job: run_job(worker._setup, job))


def electra(command: str, **macros: Any) -> int:
    return main([command, *(f"--gin.{name}={value!r}" for name, value in macros.items())])


def text_of(language: str) -> str:
    """Sixty documents of the language's words in any order; every other one is typed in decomposed letters."""
    draw = random.Random(1)
    text, has_spaces = TEXTS[language]
    words = text.split()
    joined = [(" " if has_spaces else "").join(draw.choices(words, k=max(60, len(words) // 10))) for _ in range(60)]
    return "\n\n".join(unicodedata.normalize(("NFC", "NFD")[place % 2], line) for place, line in enumerate(joined))


def cached_ids(folder: Path) -> np.ndarray:
    (made,) = (path.parent for path in folder.glob("*/COMPLETED"))
    return np.concatenate([open_blocks(made / f"{split}.blocks").tokens for split in ("train", "validation")])


def characters(text: str) -> collections.Counter[str]:
    return collections.Counter("".join(unicodedata.normalize("NFC", text).split()))


def readable(ids: np.ndarray, vocabulary: Vocabulary) -> str:
    roles = list(vocabulary.special_ids.values())
    return vocabulary.tokenizer.decode(ids[~np.isin(ids, roles)].tolist(), skip_special_tokens=False)


@pytest.mark.parametrize(
    ("language", "algorithm"), [*((language, "wordpiece") for language in TEXTS), *OTHER_ALGORITHMS]
)
def test_text_is_whole_in_the_cache(language: str, algorithm: str, tmp_path: Path) -> None:
    text = text_of(language)
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    name = "vocab.txt" if algorithm == "wordpiece" else "tokenizer.json"
    files = {"CORPUS": str(tmp_path / "text.txt"), "TOKENIZER": str(tmp_path / name)}
    settings = {"ALGORITHM": algorithm, "VOCAB_SIZE": 700} | MACROS.get(language, {})
    assert electra("vocab", **files, **settings) == 0
    settings = {"NUM_PROCESSES": 1, "HELD_OUT_FRACTION": 0.1, "SEQUENCE_LENGTH": 64}
    assert electra("cache", **files, CACHE_DIR=str(tmp_path / "c"), **settings) == 0
    vocabulary, ids = load_tokenizer(tmp_path / name, lowercase=None), cached_ids(tmp_path / "c")
    tokens, unknown = count_unknown(ids, vocabulary)
    assert tokens > 1000
    assert unknown < 0.001 * tokens
    # Unigram reads NFKC.
    text = unicodedata.normalize("NFKC", text) if algorithm == "unigram" else text
    given, kept = characters(text.lower() if vocabulary.lowercase else text), characters(readable(ids, vocabulary))
    assert not kept - given
    # The alphabet covers 99.99 %.
    assert (given - kept).total() <= 0.0001 * given.total()


def test_a_vocabulary_that_does_not_fit_the_text_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text(text_of("korean"), encoding="utf-8")
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    arguments = {"CORPUS": str(tmp_path / "text.txt"), "TOKENIZER": str(tmp_path / "vocab.txt"), "NUM_PROCESSES": 1}
    arguments |= {"CACHE_DIR": str(tmp_path / "c"), "HELD_OUT_FRACTION": 0.1}
    assert electra("cache", **arguments) == 2
    said = capsys.readouterr().err
    assert "100.00 % of the " in said
    assert "are [UNK]; the commonest characters of them: " in said
    assert "ALLOW_UNKNOWN=True continues anyway" in said
    assert electra("cache", **arguments, ALLOW_UNKNOWN=True) == 0
    said = capsys.readouterr()
    assert "warning: 100.00 %" in said.err
    # The cache's directory is all that is printed for a script to read, and naming it is refused alike.
    (line,) = said.out.splitlines()
    assert electra("cache", **arguments | {"CORPUS": line}) == 2
    # Caches of earlier versions do not know.
    record = Path(line) / "made_by.json"
    record.write_text(record.read_text().replace('"unknown": {', '"other": {'))
    assert electra("cache", **arguments | {"CORPUS": line}) == 0


def test_pre_training_and_fine_tuning_refuse_what_is_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An English vocabulary and Korean text, in the two commands that train."""
    (tmp_path / "text.txt").write_text(text_of("korean"), encoding="utf-8")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    files = {"CORPUS": str(tmp_path / "text.txt"), "TOKENIZER": str(tmp_path / "vocab.txt"), "NUM_PROCESSES": 1}
    files |= {"CACHE_DIR": str(tmp_path / "c"), "MODEL_DIR": str(tmp_path / "run"), "VOCAB_SIZE": len(vocabulary)}
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    arguments = [f"--gin.{name}={value!r}" for name, value in files.items()]
    assert main(["pretrain", *FILES, *arguments, "--gin.BATCH_SIZE=8", "--gin.HELD_OUT_FRACTION=0.1"]) == 2
    assert "are [UNK]; the commonest characters of them: " in capsys.readouterr().err
    assert not (tmp_path / "run/config.gin").exists()
    lines = text_of("korean").split("\n\n")
    for split in ("train", "dev"):
        rows = [f"{line}\t{number % 2}" for number, line in enumerate(lines[:8])]
        (tmp_path / f"{split}.tsv").write_text("\n".join(["text\tlabel", *rows]), encoding="utf-8")
    model = write_tuned(tmp_path / "model", "discriminator", labels=(), task=None)
    settings = {"TASK": "classification", "TEXT_COLUMN": "text", "LABEL_COLUMN": "label", "INIT_FROM": str(model)}
    settings |= {
        "DATA_DIR": str(tmp_path),
        "MODEL_DIR": str(tmp_path / "tuned"),
        "MAX_SEQ_LENGTH": 32,
        "BUCKETS": (32,),
    }
    assert electra("finetune", **settings) == 2
    said = capsys.readouterr().err
    assert "tokens of the train split are [UNK]; the commonest characters of them: " in said
    assert "ALLOW_UNKNOWN=True continues anyway" in said
