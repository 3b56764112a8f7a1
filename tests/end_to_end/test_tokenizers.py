"""Any tokenizer.json from the text to a pre-trained model, its masks and its special tokens."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from tokenizers import Tokenizer

import electra_jax
from electra_jax.checkpoints import model_dir
from electra_jax.cli import main
from electra_jax.data.blocks import open_blocks
from electra_jax.tasks.tokenizer_file import load_tokenizer
from support.command_line import FILES, SMALL, STEPS
from support.text_rows import text_features
from support.tokenizers import NASTY, SIZE, TEXTS, tokenizer_json, write_tokenizer_json

SHAPES = ["modernbert", "xlm_roberta"]


@pytest.fixture(autouse=True)
def compilations(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compiled programs are kept where the tests keep theirs, and only while a test lasts."""
    monkeypatch.setenv("ELECTRA_CACHE_DIR", str(place / "cache"))
    kept = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", kept)


def electra(verb: str, *arguments: str, **macros: Any) -> int:
    return main([verb, *arguments, *(f"--gin.{name}={value!r}" for name, value in macros.items())])


def write_text(folder: Path) -> Path:
    """Documents in several scripts, with special tokens spelled out in them."""
    draw = random.Random(0)
    lines = [*(text.replace("\n", " ").replace("\r", " ") for text in NASTY[2:]), *TEXTS, "the <mask> </s> [SEP] <s>"]
    documents = ["\n".join(draw.choices(lines, k=4)) for _ in range(40)]
    path = folder / "text.txt"
    path.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return path


def pretrain(folder: Path, shape: str, **changes: Any) -> int:
    tokenizer = write_tokenizer_json(folder, shape)
    texts = {"CORPUS": str(write_text(folder)), "TOKENIZER": str(tokenizer), "CACHE_DIR": str(folder / "caches")}
    settings = SMALL | {"VOCAB_SIZE": SIZE, "MODEL_DIR": str(folder / "run"), **STEPS, "TRAIN_STEPS": 4} | texts
    return electra("pretrain", *FILES, **(settings | changes))


def caches(folder: Path) -> list[Path]:
    return [path.parent for path in (folder / "caches").glob("*/COMPLETED")]


@pytest.fixture(scope="module", params=SHAPES)
def pretrained(request: pytest.FixtureRequest, place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer of a shape, a text, its cache, and a pre-training run."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ELECTRA_CACHE_DIR", str(place / "cache"))
        assert pretrain(folder, request.param) == 0
    return folder


def test_pretraining(pretrained: Path) -> None:
    vocabulary = load_tokenizer(pretrained / "tokenizer.json", lowercase=None)
    (cache,) = caches(pretrained)
    made_by = json.loads((cache / "made_by.json").read_text())
    assert made_by["vocabulary_fingerprint"] == vocabulary.fingerprint
    blocks = open_blocks(cache / "train.blocks")
    cls, sep, mask = vocabulary.cls_id, vocabulary.sep_id, vocabulary.mask_id
    for start, end in zip(blocks.offsets[:-1], blocks.offsets[1:], strict=True):
        row = blocks.tokens[start:end].tolist()
        assert (row[0], row[-1]) == (cls, sep)
        # None of those that the text spells out.
        assert row.count(sep) in (1, 2)
        assert row.count(cls) == 1
        assert mask not in row
    assert model_dir.load(pretrained / "run").vocabulary == vocabulary


def test_predictions_of_a_pretrained_model(pretrained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = electra_jax.load(pretrained / "run")
    mask = model.vocabulary.special.mask
    (record,) = model([f"the cat {mask} on"])
    assert record["input_ids"].count(model.vocabulary.mask_id) <= 1
    assert [filling["position"] for filling in record["fillings"]] == [
        len(model.vocabulary.encode("the cat"))
        + 1
        + (record["tokens"][len(model.vocabulary.encode("the cat")) + 1] == "▁")
    ]
    assert electra("evaluate", f"--gin_file={pretrained / 'run/config.gin'}") == 0
    evaluation = json.loads((pretrained / "run/evaluation.json").read_text())
    originals = [token for passage in evaluation["passages"] for token in passage["originals"]]
    assert any(token.startswith(" ") and token.strip().isalpha() for token in originals)
    capsys.readouterr()


def squad(folder: Path, number: int) -> dict[str, Any]:
    """Questions about the places of people, the answer in the middle of a text with spaces of its own."""
    draw = random.Random(number)
    entries = []
    for index in range(number):
        name, city = draw.choice(("Ann", "Bob")), draw.choice(("New York", "Paris", "हिन्दी"))
        context = f"{name}  works in {city}, and\tthe cat sat."
        answers = [{"text": city, "answer_start": context.index(city)}]
        qas = [{"id": f"{number}-{index}", "question": "where", "answers": answers}]
        entries.append({"title": name, "paragraphs": [{"context": context, "qas": qas}]})
    return {"version": "1.1", "data": entries}


FINETUNING = {"BATCH_SIZE": 16, "LEARNING_RATE": 3e-3, "EPOCHS": 2, "BUCKETS": (32,), "MAX_SEQ_LENGTH": 32}


def test_question_answering(pretrained: Path, tmp_path: Path) -> None:
    (tmp_path / "squad_v1").mkdir()
    for split, number in (("train", 24), ("dev", 9)):
        (tmp_path / f"squad_v1/{split}.json").write_text(json.dumps(squad(tmp_path, number)))
    places = {"INIT_FROM": str(pretrained / "run"), "DATA_DIR": str(tmp_path), "MODEL_DIR": str(tmp_path / "run")}
    settings = {"TASK": "squad_v1", "QA_HEAD": "transformers", "MAX_QUESTION_LENGTH": 4, **FINETUNING}
    assert electra("finetune", **places, **settings) == 0
    model = electra_jax.load(tmp_path / "run")
    assert model.vocabulary == load_tokenizer(pretrained / "tokenizer.json", lowercase=None)
    context = "Ann  works in New York, and\tthe cat sat."
    (answer,) = model([{"question": "where", "context": context}])
    assert answer["answer"] in context
    assert answer["answer"] == answer["answer"].strip()
    assert electra("evaluate", MODEL_DIR=str(tmp_path / "run"), SPLIT="dev", OUTPUT=str(tmp_path / "scores.json")) == 0
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out"), "--format", "transformers"]) == 0
    exported = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    before = Tokenizer.from_file(str(pretrained / "tokenizer.json"))
    for text in NASTY:
        assert exported.encode(text).ids == before.encode(text).ids
    (row,) = text_features([("where", context)], vocabulary=model.vocabulary, length=99)
    encoding = exported.encode("where", context)
    assert (encoding.ids, encoding.type_ids) == (row.input_ids, row.token_type_ids)


def test_tagging(pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ner").mkdir()
    sentence = "Ann B-PER\nworks O\nin O\nNew B-LOC\nYork I-LOC\n\u200b O\n. O\n\n"
    for split, number in (("train", 16), ("dev", 8)):
        (tmp_path / f"ner/{split}.txt").write_text(sentence * number)
    places = {"INIT_FROM": str(pretrained / "run"), "DATA_DIR": str(tmp_path), "MODEL_DIR": str(tmp_path / "run")}
    assert electra("finetune", TASK="ner", **places, **(FINETUNING | {"EPOCHS": 40, "EVALUATE_EVERY": 20})) == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    # One sentence again and again: the words' own pieces carry the tags.
    assert results["summary"]["f1"]["best"] == 100.0
    capsys.readouterr()
    assert electra("predict", str(tmp_path / "run"), "Ann works in New York .") == 0
    assert '"York"' in capsys.readouterr().out


def test_another_tokenizer_has_another_cache_and_cannot_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same tokens, of which two are merged in another order: no size and no name would tell."""
    assert pretrain(tmp_path, "roberta") == 0
    (cache,) = caches(tmp_path)
    values = json.loads(tokenizer_json("roberta"))
    merges = values["model"]["merges"]
    merges[0], merges[-1] = merges[-1], merges[0]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(values))
    assert pretrain(tmp_path, "roberta", TOKENIZER=str(other), CORPUS=str(cache)) == 2
    assert "was tokenised with another vocabulary" in capsys.readouterr().err
    assert pretrain(tmp_path, "roberta", TOKENIZER=str(other)) == 2
    assert "was trained with another vocabulary than" in capsys.readouterr().err
    assert len(caches(tmp_path)) == 2


def test_a_tokenizer_of_another_size_than_the_model_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain(tmp_path, "albert", VOCAB_SIZE=77) == 2
    said = capsys.readouterr().err
    assert f"tokenizer.json has {SIZE} entries and the model has 77: set --gin.VOCAB_SIZE={SIZE}" in said
    assert not (tmp_path / "run").exists()


def test_the_older_name_of_the_macro(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Users and recorded runs that say VOCAB_FILE get what they got."""
    tokenizer = write_tokenizer_json(tmp_path, "albert")
    texts = {"CORPUS": str(write_text(tmp_path)), "VOCAB_FILE": str(tokenizer), "CACHE_DIR": str(tmp_path)}
    run = SMALL | {"VOCAB_SIZE": SIZE, "MODEL_DIR": str(tmp_path / "run"), **STEPS, "TRAIN_STEPS": 4} | texts
    assert electra("pretrain", *FILES, **run) == 0
    recorded = (tmp_path / "run/config.gin").read_text().replace("\\\n    ", "")
    assert f"VOCAB_FILE = '{tokenizer}'" in recorded
    assert "TOKENIZER" not in recorded
    assert model_dir.load(tmp_path / "run").vocabulary == load_tokenizer(tokenizer, lowercase=None)
    capsys.readouterr()
    assert electra("pretrain", f"--gin_file={tmp_path / 'run/config.gin'}") == 0
    assert "nothing left to do" in capsys.readouterr().out
