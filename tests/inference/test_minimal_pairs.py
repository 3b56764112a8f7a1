"""Minimal pairs: towers whose scores are known by hand, those of chance against other calls, and bad files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

import electra_jax
from electra_jax.cli import main
from electra_jax.inference import minimal_pairs
from electra_jax.inference.minimal_pairs import overall, score_pairs, scorers_of
from electra_jax.inference.network import Network
from electra_jax.tasks.text.minimal_pairs import MinimalPair, read_minimal_pairs
from support.finetuned_model import TOKENS, text_facts, write_tuned

ID = {token: number for number, token in enumerate(TOKENS)}
PAIRS = {
    "agreement": [MinimalPair("the cats ran", "the cat ran"), MinimalPair("the dog ran home", "the dogs ran home")],
    "order": [MinimalPair("the dog sat on the mat", "on sat mat the dog the")],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair, its discriminator as if Electric had trained it, and a language model; all with weights of chance."""
    path = tmp_path_factory.mktemp("pairs")
    write_tuned(path / "pair", "pretraining", labels=(), task=None)
    shutil.copytree(path / "pair", path / "electric")
    record = json.loads((path / "pair/model.json").read_text())
    record |= {"kind": "discriminator", "generator": None, "facts": {"objective": "Electric"}}
    (path / "electric/model.json").write_text(json.dumps(record))
    write_tuned(path / "lm", "generator", labels=(), task=None)
    record = json.loads((path / "lm/model.json").read_text())
    record["facts"] = {"made by": "electra pretrain", "objective": "LanguageModel"}
    (path / "lm/model.json").write_text(json.dumps(record))
    return path


def unigram(model: Network, probabilities: dict[str, float]) -> Network:
    """The model, whose generator says of every mask the same: these probabilities, and 1e-9 of any other token."""
    head = jax.tree.map(np.zeros_like, model.params["generator"]["head"])
    head["output_bias"] = np.full(len(TOKENS), np.log(1e-9), np.float32)
    for token, value in probabilities.items():
        head["output_bias"][ID[token]] = np.log(value)
    model.params["generator"]["head"] = head
    return model


def constant(model: Network, logit: float) -> Network:
    """The model, whose discriminator says the same of every token."""
    head = jax.tree.map(np.zeros_like, model.params["discriminator"]["head"])
    head["prediction"]["bias"] = np.full_like(head["prediction"]["bias"], logit)
    model.params["discriminator"]["head"] = head
    return model


def rows_of(*texts: str) -> list[np.ndarray]:
    return [np.array([2, *(ID[token] for token in text.split()), 3]) for text in texts]


def test_a_sum_is_of_the_tokens_and_a_mean_of_each(folder: Path) -> None:
    """Of "the" 1/2, "cat" 1/4, "##s" 1/8, "ran" 1/8: the cats ran is 2^-9 in 4 tokens, the cat ran 2^-6 in 3."""
    model = unigram(electra_jax.load(folder / "pair"), {"the": 1 / 2, "cat": 1 / 4, "##s": 1 / 8, "ran": 1 / 8})
    scores = scorers_of(model)["mlm"](rows_of("the cat ##s ran", "the cat ran", "the the"), 4)
    np.testing.assert_allclose([score.total for score in scores], np.log(2.0) * np.array([-9, -6, -2]), atol=1e-4)
    np.testing.assert_allclose([score.mean for score in scores], np.log(2.0) * np.array([-2.25, -2, -1]), atol=1e-4)
    pairs = {
        "first": [MinimalPair("the cat ran", "the cats ran"), MinimalPair("the cats ran", "the cat ran")],
        # By the sum one "ran" is better than three, by the mean "the" makes up for it.
        "second": [MinimalPair("the the ran", "ran")],
    }
    found = score_pairs(model, pairs, batch_size=4)
    assert {name: each["mlm"] for name, each in found.items()} == {
        "first": {"sum": 50.0, "mean": 50.0},
        "second": {"sum": 0.0, "mean": 100.0},
    }
    whole = overall(found)
    assert whole["num_pairs"] == 3
    assert whole["mlm"] == pytest.approx({"sum": 100 / 3, "mean": 200 / 3})


@pytest.mark.parametrize(
    ("name", "way", "logit", "each"),
    [("pair", "discriminator", 1.0, -np.log1p(np.e)), ("electric", "energy", -0.5, 0.5)],
)
def test_a_constant_tower_counts_tokens(name: str, way: str, logit: float, each: float, folder: Path) -> None:
    model = constant(electra_jax.load(folder / name), logit)
    (long, short) = scorers_of(model)[way](rows_of("the cat ##s ran", "the cat ran"), 4)
    np.testing.assert_allclose([long.total, short.total], [4 * each, 3 * each], rtol=1e-5)
    found = score_pairs(model, {"file": [MinimalPair("the cat ran", "the cats ran")]}, batch_size=4)
    # A tie, as of the means, tells nothing right.
    assert found["file"][way] == {"sum": 100.0 if each < 0 else 0.0, "mean": 0.0}
    assert set(found["file"]) == {"num_pairs", way, *(["mlm"] if name == "pair" else [])}


def test_towers_of_chance_are_read_token_by_token(folder: Path) -> None:
    model = electra_jax.load(folder / "pair")
    (ids,) = rows_of("the dog ran home")
    masked = np.repeat(ids[None], 4, axis=0)
    masked[np.arange(4), np.arange(1, 5)] = ID["[MASK]"]
    log_probs = np.asarray(jax.nn.log_softmax(model.generator_logits(masked)))
    by_hand = sum(log_probs[place, place + 1, ids[place + 1]] for place in range(4))
    looked = np.asarray(jax.nn.log_sigmoid(-model.logits(ids[None])))[0, 1:5].sum()
    # Beside longer and shorter rows.
    rows = rows_of("the dog sat on the mat", "the dog ran home", "ran")
    for way, expected in (("mlm", by_hand), ("discriminator", looked)):
        found = scorers_of(model)[way](rows, 3)[1]
        np.testing.assert_allclose(found.total, expected, rtol=1e-4)
        assert found.num_tokens == 4


def test_a_language_model_predicts_each_token_from_those_before_it(folder: Path) -> None:
    """The sum over prefixes of what the model says after each, run by itself."""
    model = electra_jax.load(folder / "lm")
    assert list(scorers_of(model)) == ["lm"]
    (ids,) = rows_of("the dog ran home")
    said = (np.asarray(jax.nn.log_softmax(model.logits(ids[None, :end])))[0, -1, ids[end]] for end in range(1, 5))
    rows = rows_of("the dog sat on the mat", "the dog ran home", "ran")
    found = scorers_of(model)["lm"](rows, 3)[1]
    np.testing.assert_allclose(found.total, sum(said), rtol=1e-4)
    assert found.num_tokens == 4


def test_a_language_model_fills_no_mask_and_has_no_class_in_transformers(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (record,) = electra_jax.load(folder / "lm")(["the [MASK] ran"])
    assert "fillings" not in record
    assert main(["export", str(folder / "lm"), str(tmp_path / "out"), "--format", "transformers"]) == 2
    assert "this language model reads from the left: fine-tune it" in capsys.readouterr().err


def write_pairs(path: Path) -> Path:
    path.mkdir()
    for name, pairs in PAIRS.items():
        lines = [json.dumps({"sentence_good": good, "sentence_bad": bad, "UID": name}) for good, bad in pairs]
        (path / f"{name}.jsonl").write_text("\n".join(lines) + "\n\n")
    return path


def arguments(model: Path | None, pairs: Path | None) -> list[str]:
    named = {"MODEL_DIR": model, "DATA_DIR": pairs}
    return ["evaluate", "--gin.TASK='minimal_pairs'"] + [
        f"--gin.{name}={str(value)!r}" for name, value in named.items() if value is not None
    ]


def test_a_folder_is_scored_by_file_and_overall(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_pairs(tmp_path / "data")
    assert read_minimal_pairs(data) == PAIRS
    assert main(arguments(folder / "pair", data)) == 0
    found = json.loads((folder / "pair/minimal_pairs.json").read_text())
    assert (found["task"], found["step"], found["num_pairs"]) == ("minimal_pairs", 3, 3)
    assert {name: each["num_pairs"] for name, each in found["files"].items()} == {"agreement": 2, "order": 1}
    for way in ("mlm", "discriminator"):
        for by in ("sum", "mean"):
            two, one = (found["files"][name][way][by] for name in PAIRS)
            assert found[way][by] == pytest.approx((2 * two + one) / 3)
    # Not evaluation.json, which is of the held-out text.
    assert not (folder / "pair/evaluation.json").exists()
    assert "all files" in capsys.readouterr().out


def no_files(data: Path) -> None:
    for path in data.iterdir():
        path.rename(path.with_suffix(".txt"))


def line(text: str) -> Callable[[Path], None]:
    def write(data: Path) -> None:
        (data / "order.jsonl").write_text(f'{{"sentence_good": "a", "sentence_bad": "b"}}\n{text}\n')

    return write


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (no_files, "data holds no .jsonl file: set DATA_DIR"),
        (shutil.rmtree, "data holds no .jsonl file: set DATA_DIR"),
        (line('{"sentence_good": "the cat"}'), "order.jsonl, line 2: no text 'sentence_bad'"),
        (line('{"sentence_good": 3, "sentence_bad": "b"}'), "order.jsonl, line 2: no text 'sentence_good'"),
        (line('["a", "b"]'), "order.jsonl, line 2: no text 'sentence_good'"),
        (line("the cat"), "order.jsonl, line 2: not JSON"),
        (line('{"sentence_good": "\\u200b", "sentence_bad": "b"}'), "from which the tokenizer makes no token"),
        (line(json.dumps({"sentence_good": "the " * 40, "sentence_bad": "b"})), "a sentence to score has 1 to 32"),
        (lambda data: (data / "order.jsonl").write_text(""), "order.jsonl is empty"),
    ],
)
def test_what_is_no_folder_of_pairs(
    damage: Callable[[Path], None], sentence: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_pairs(tmp_path / "data")
    damage(data)
    assert main(arguments(folder / "pair", data)) == 2
    assert sentence in capsys.readouterr().err


def test_a_model_without_a_tower_that_scores_and_none_at_all(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_pairs(tmp_path / "data")
    facts = text_facts("rte", ("no", "yes"), pair=True)
    tuned = write_tuned(tmp_path / "tuned", "sequence_classification", labels=("no", "yes"), task=facts)
    for model, pairs, sentence in (
        (tuned, data, "'sequence_classification' scores no sentence by itself"),
        (None, data, "set MODEL_DIR to it, and DATA_DIR to the pairs"),
        (folder / "pair", None, "set MODEL_DIR to it, and DATA_DIR to the pairs"),
    ):
        assert main(arguments(model, pairs)) == 2
        assert sentence in capsys.readouterr().err


def test_every_token_is_masked_once() -> None:
    rows = minimal_pairs.masked_rows(np.array([2, 9, 8, 3]), 4)
    assert [row["input_ids"].tolist() for row in rows] == [[2, 4, 8, 3], [2, 9, 4, 3]]
    assert [(int(row["position"]), int(row["target"])) for row in rows] == [(1, 9), (2, 8)]
