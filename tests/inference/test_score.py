"""`Model.score` and `electra score`: what Electric says of sentences, and of what else it is refused."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import electra_jax
from electra_jax.cli import main
from electra_jax.errors import UserError

SUBSET = Path(__file__).parents[1] / "parity" / "data" / "hf" / "subset"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat", "mat"]
LINES = "The cats sat\n\n  the mat \nthe cat sat the cat sat\n"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A discriminator of which nothing says how it was trained."""
    folder = tmp_path_factory.mktemp("score")
    source = Path(shutil.copytree(SUBSET / "pretraining", folder / "source"))
    words = [*WORDS, *(f"[unused{number}]" for number in range(40 - len(WORDS)))]
    (source / "vocab.txt").write_text("\n".join(words) + "\n")
    assert main(["import", str(source), str(folder / "plain")]) == 0
    return folder / "plain"


@pytest.fixture(scope="module")
def electric(plain: Path) -> Path:
    """The same, as if Electric had trained it."""
    folder = Path(shutil.copytree(plain, plain.with_name("electric")))
    record = json.loads((folder / "model.json").read_text())
    record["facts"]["objective"] = "Electric"
    (folder / "model.json").write_text(json.dumps(record))
    return folder


def printed(capsys: pytest.CaptureFixture[str], *command: object) -> list[dict]:
    capsys.readouterr()
    assert main([str(part) for part in command]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_sentence_is_minus_the_energies_of_its_words(electric: Path) -> None:
    model = electra_jax.load(electric)
    (record,) = model.score("The cats sat")
    energies = model.logits([[2, 5, 6, 7, 8, 3]])[0, 1:5]
    assert record["sentence"] == "The cats sat"
    assert record["tokens"] == ["the", "cat", "##s", "sat"]
    np.testing.assert_allclose(record["scores"], -energies, rtol=0, atol=1e-6)
    np.testing.assert_allclose(record["total"], -energies.sum(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(record["mean"], -energies.mean(), rtol=0, atol=1e-5)


def test_neighbours_in_a_batch_change_nothing(electric: Path) -> None:
    model = electra_jax.load(electric)
    texts = ["the cat sat on the mat", "sat", "", "the cats"]
    together, alone = model.score(texts), [model.score(text)[0] for text in texts]
    for one, other in zip(together, alone, strict=True):
        assert one["tokens"] == other["tokens"]
        np.testing.assert_allclose(one["scores"], other["scores"], rtol=0, atol=1e-5)
    assert together[2] == {"sentence": "", "tokens": [], "scores": [], "total": 0.0, "mean": None}


def test_token_ids_are_the_text_that_they_spell(electric: Path) -> None:
    model = electra_jax.load(electric)
    by_ids, by_text = model.score([[2, 5, 6, 4, 3]])[0], model.score("the cat")[0]
    assert by_ids["input_ids"] == [2, 5, 6, 4, 3]
    # [MASK] is no word, but it is read.
    assert by_ids["tokens"] == by_text["tokens"]
    assert np.abs(np.subtract(by_ids["scores"], by_text["scores"])).max() > 1e-4


def test_lines_of_a_file_of_standard_input_and_a_sentence(
    electric: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lines.txt").write_text(LINES)
    from_file = printed(capsys, "score", electric, tmp_path / "lines.txt", "--batch_size", 2)
    assert [record["sentence"] for record in from_file] == ["The cats sat", "the mat", "the cat sat the cat sat"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(LINES.encode())))
    for record, again in zip(from_file, printed(capsys, "score", electric, "-"), strict=True):
        np.testing.assert_allclose(record["total"], again["total"], rtol=0, atol=1e-5)
    (alone,) = printed(capsys, "score", electric, "The cats sat")
    np.testing.assert_allclose(alone["scores"], from_file[0]["scores"], rtol=0, atol=1e-5)


def test_predict_does_not_call_an_energy_a_probability(
    electric: Path, plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (record,) = printed(capsys, "predict", electric, "[2, 5, 3]")
    assert "logits" in record
    assert "replaced_probability" not in record
    assert "replaced_probability" in printed(capsys, "predict", plain, "[2, 5, 3]")[0]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("the cat " * 20, "a sentence to score has 1 to 12"),
        ('{"text": "the cat", "text_pair": "sat"}', "is a pair"),
        ("sentnces.txt", "cannot be read"),
        ("[2, 99, 3]", "0 to 39"),
    ],
)
def test_what_cannot_be_scored(source: str, sentence: str, electric: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(electric), source]) == 2
    assert sentence in capsys.readouterr().err


def test_another_model_is_refused_by_name(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(plain), "the cat"]) == 2
    error = capsys.readouterr().err
    assert "'discriminator' gives no likelihoods" in error
    assert "gin/objectives/electric.gin" in error
    folder = Path(shutil.copytree(plain, tmp_path / "electra"))
    record = json.loads((folder / "model.json").read_text())
    record["facts"]["objective"] = "ReplacedTokenDetection"
    (folder / "model.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="trained by ReplacedTokenDetection"):
        electra_jax.load(folder).score("the cat")
