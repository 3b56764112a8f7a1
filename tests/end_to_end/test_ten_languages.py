"""Text of ten languages and alphabets from `electra vocab` to `electra predict`: hardly an [UNK], and every character.

The texts are Article 1 of the Universal Declaration of Human Rights, its words and compounds of two of them in any
order; code and DNA are made up.
"""

import collections
import json
import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from electra_jax.cli import main
from electra_jax.data.blocks import open_blocks
from electra_jax.tasks.pretraining import cache
from electra_jax.tasks.pretraining.cache_worker import run_job
from electra_jax.tasks.tokenizer_file import load_tokenizer
from electra_jax.tasks.unknown import count_unknown
from electra_jax.tasks.vocabulary import Vocabulary
from support.command_line import FILES, SMALL

SENTENCES = {
    "chinese": "人人 生而 自由 ， 在 尊严 和 权利 上 一律 平等 。 他们 赋有 "
    "理性 和 良心 ， 并 应 以 兄弟 关系 的 精神 相对 待 。",
    "japanese": "すべて の 人間 は 、 生まれながら にして 自由 で あり 、 かつ 、 "
    "尊厳 と 権利 と に ついて 平等 で ある 。 ガラス の パソコン",
    "thai": "มนุษย์ ทั้งหลาย เกิด มา มี อิสระ และ เสมอภาค กัน ใน เกียรติ ศักดิ์ และ สิทธิ ต่าง มี เหตุผล และ มโนธรรม น้ำ",
    "korean": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 "
    "있어 동등하다 . 인간은 천부적으로 이성과 양심을 부여받았으며",
    "arabic": "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق . وقد "
    "وهبوا عقلاً وضميرًا وعليهم أن يعامل بعضهم بعضًا بروح الإخاء",
    "hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है । उन्हें बुद्धि और अन्तरात्मा की देन",
    "german": "Alle Menschen sind frei und gleich an Würde und Rechten "
    "geboren . Sie sollen einander im Geist der Brüderlichkeit begegnen",
    "russian": "Все люди рождаются свободными и равными в своём достоинстве и "
    "правах . Они наделены разумом и совестью и должны",
    "code": "def return left += right['key'] # {name}: \"text\" -> None "
    "!= x[i] \\n \t if(not_found): @cached lambda *args, **kwargs:",
    "dna": "ACGT",
}
WITHOUT_SPACES = ("chinese", "japanese", "thai")
ALGORITHMS = {"thai": "unigram", "code": "bpe", "dna": "bpe"}
# The programs of one size are compiled once.
SIZE = 400
RUN = {
    "SEQUENCE_LENGTH": 64,
    "encoder.EncoderConfig.max_position_embeddings": 64,
    "encoder.EncoderConfig.num_hidden_layers": 1,
    "TRAIN_STEPS": 2,
    "WARMUP_STEPS": 1,
    "SAVE_EVERY": 2,
    "EVALUATE_EVERY": 2,
}


@pytest.fixture(autouse=True)
def in_process(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tokenise in this process; compiled programs are kept where the tests keep theirs, and only while a test lasts."""
    monkeypatch.setattr(cache._Worker, "run", lambda worker, job: run_job(worker._setup, job))
    monkeypatch.setenv("ELECTRA_CACHE_DIR", str(place / "cache"))
    kept = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", kept)


def electra(command: str, *arguments: str, **macros: Any) -> int:
    return main([command, *arguments, *(f"--gin.{name}={value!r}" for name, value in macros.items())])


def text_of(language: str) -> str:
    """Forty documents of two lines; the second half is typed in decomposed letters."""
    draw = random.Random(1)
    words = SENTENCES[language].split()
    if language == "chinese":
        known = set("".join(words))
        words += [chr(0x4E00 + number) for number in range(900) if chr(0x4E00 + number) not in known][
            : 395 - len(known)
        ]
    elif language == "dna":
        words = ["".join(draw.choices(words[0], k=9)) for _ in range(200)]
    elif language != "code":
        words += [f"{draw.choice(words)}{draw.choice(words)}" for _ in range(150)]
    joint = "" if language in (*WITHOUT_SPACES, "dna") else " "
    lines = [joint.join(draw.choices(words, k=60)) for _ in range(80)]
    documents = ["\n".join(lines[start : start + 2]) for start in range(0, 80, 2)]
    halves = [unicodedata.normalize(("NFC", "NFD")[place >= 20], text) for place, text in enumerate(documents)]
    return "\n\n".join(halves) + "\n"


def characters(text: str) -> collections.Counter[str]:
    return collections.Counter("".join(unicodedata.normalize("NFKC", text).split()))


def readable(ids: np.ndarray, vocabulary: Vocabulary) -> str:
    roles = list(vocabulary.special_ids.values())
    return vocabulary.tokenizer.decode(ids[~np.isin(ids, roles)].tolist(), skip_special_tokens=False)


@pytest.mark.parametrize("language", SENTENCES)
def test_from_text_to_a_prediction(language: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, algorithm = text_of(language), ALGORITHMS.get(language, "wordpiece")
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    tokenizer = tmp_path / ("vocab.txt" if algorithm == "wordpiece" else "tokenizer.json")
    files = {"CORPUS": str(tmp_path / "text.txt"), "TOKENIZER": str(tokenizer)}
    cached = {"CACHE_DIR": str(tmp_path / "c"), "HELD_OUT_FRACTION": 0.0, "NUM_PROCESSES": 1, "SEQUENCE_LENGTH": 64}
    assert electra("vocab", **files, ALGORITHM=algorithm, VOCAB_SIZE=SIZE) == 0
    assert electra("cache", **files, **cached) == 0
    vocabulary = load_tokenizer(tokenizer, lowercase=None)
    (made,) = (path.parent for path in (tmp_path / "c").glob("*/COMPLETED"))
    ids = open_blocks(made / "train.blocks").tokens
    tokens, unknown = count_unknown(ids, vocabulary)
    assert tokens > 1000
    assert unknown < 0.001 * tokens
    given, kept = characters(text.lower() if vocabulary.lowercase else text), characters(readable(ids, vocabulary))
    assert not kept - given
    assert (given - kept).total() <= 0.0001 * given.total()

    settings = SMALL | cached | RUN | {"VOCAB_SIZE": vocabulary.vocab_size, "MODEL_DIR": str(tmp_path / "run")}
    assert electra("pretrain", *FILES, **files, **settings) == 0
    assert [path.parent for path in (tmp_path / "c").glob("*/COMPLETED")] == [made]
    # A part of a line that the model reads whole; what stands at its ends may be part of a letter.
    sentence = text.split("\n")[0][:20].strip()
    capsys.readouterr()
    assert electra("predict", str(tmp_path / "run"), sentence) == 0
    (record,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert vocabulary.special.unk not in record["tokens"]
    assert len(record["replaced_probability"]) == len(record["input_ids"])
    assert np.all(np.isfinite(record["replaced_probability"]))
    shown = characters(readable(np.array(record["input_ids"]), vocabulary))
    assert shown == characters(sentence.lower() if vocabulary.lowercase else sentence)
