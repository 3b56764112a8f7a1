"""Probes of frozen encoders: which states are read, what is asked of them, and `electra probe`."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import linen as nn

from electra_jax.cli import main
from electra_jax.compare.records import ScoredSeeds
from electra_jax.finetuning import probes
from electra_jax.finetuning.probes import LayerScore
from electra_jax.json_files import read_json
from electra_jax.model.config import EncoderConfig
from electra_jax.model.embeddings import Embeddings
from electra_jax.model.encoder import Encoder
from electra_jax.model.types import PyTree, Tokens
from electra_jax.tasks.tagging.probing import Asked, ask
from electra_jax.tasks.tagging.sentences import TaggedSentence
from electra_jax.tasks.vocabulary import Vocabulary
from support.finetuned_model import TOKENS, write_tuned
from support.tiny_model import modern_encoder, small_encoder

VOCABULARY = Vocabulary(TOKENS, True, True)
CAT, CATS, THE, SAT = TOKENS.index("cat"), TOKENS.index("##s"), TOKENS.index("the"), TOKENS.index("sat")


def random_tokens(rows: int, length: int) -> Tokens:
    ids_BL = np.random.default_rng(0).integers(5, 60, (rows, length)).astype(np.int32)
    return Tokens(ids_BL, np.zeros_like(ids_BL), np.ones_like(ids_BL))


@pytest.mark.parametrize("config", [small_encoder(dropout=0.1), modern_encoder()], ids=["bert", "modern"])
def test_the_states_of_a_layer_are_the_output_of_an_encoder_that_ends_there(config: EncoderConfig) -> None:
    params, tokens = probes.init_encoder(jax.random.key(3), config), random_tokens(2, 16)
    states_BLND = probes.hidden_states(params, tokens, config=config, left_to_right=False)
    assert states_BLND.shape == (2, 16, config.num_hidden_layers + 1, config.hidden_size)
    shallow = dataclasses.replace(config, num_hidden_layers=1, scan_unroll=1)
    encoder = params["discriminator"]["encoder"]
    one = {**encoder, "layers": jax.tree.map(lambda leaf: leaf[:1], encoder["layers"])}
    _, sown = Encoder(shallow).apply(
        {"params": one},
        Embeddings(config).apply(
            {"params": params["embeddings"]}, tokens.input_ids, tokens.token_type_ids, deterministic=True
        ),
        tokens.attention_mask,
        deterministic=True,
        mutable="intermediates",
        capture_intermediates=lambda module, _: isinstance(module, Encoder),
    )
    (output_BLD,) = sown["intermediates"]["__call__"]
    if config.norm_placement == "pre":
        # What leaves the encoder is the last layer's LayerNorm of the residuals, without a bias.
        residual_BLD = states_BLND[:, :, 1]
        centred_BLD = residual_BLD - residual_BLD.mean(-1, keepdims=True)
        scaled_BLD = centred_BLD / np.sqrt((centred_BLD**2).mean(-1, keepdims=True) + config.layer_norm_eps)
        np.testing.assert_allclose(scaled_BLD, output_BLD, rtol=0, atol=1e-4)
    else:
        np.testing.assert_allclose(states_BLND[:, :, 1], output_BLD, rtol=0, atol=1e-5)
    assert np.abs(states_BLND[:, :, 2] - states_BLND[:, :, 1]).max() > 1e-3


def test_a_language_model_is_probed_as_it_reads() -> None:
    """What comes after a token changes nothing of its states."""
    config = small_encoder()
    params, tokens = probes.init_encoder(jax.random.key(3), config), random_tokens(2, 16)
    first = jax.tree.map(lambda array: array[:, :9], tokens)
    whole, part = (
        probes.hidden_states(params, text, config=config, left_to_right=True)[:, :9] for text in (tokens, first)
    )
    np.testing.assert_allclose(whole, part, rtol=0, atol=1e-5)
    both = probes.hidden_states(params, tokens, config=config, left_to_right=False)[:, :9]
    assert np.abs(whole - both)[:, :, 1:].max() > 1e-3


def asked_of(rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]], answers: Sequence[str]) -> Asked:
    made = [{name: np.array(ids, np.int32) for name in ("input_ids",)} for ids in rows]
    made = [row | {"token_type_ids": np.zeros_like(row["input_ids"])} for row in made]
    return Asked(made, [np.array(places, np.int64) for places in positions], list(answers), 0)


def test_features_stand_in_the_order_of_the_answers() -> None:
    """Rows run by length; the states come back by row and position."""
    config = small_encoder()
    params = probes.init_encoder(jax.random.key(3), config)
    rows = [[2, 9, 3], [2, 9, 10, 11, 12, 3], [2, 20, 21, 3], [2, 3]]
    positions = [[1], [4, 1], [2], []]
    found = probes.features(params, config, asked_of(rows, positions, "abcd"), left_to_right=False, batch_size=2)
    expected = []
    for ids, places in zip(rows, positions, strict=True):
        ids_1L = np.array([ids], np.int32)
        alone = probes.hidden_states(
            params, Tokens(ids_1L, 0 * ids_1L, 1 + 0 * ids_1L), config=config, left_to_right=False
        )
        expected += [alone[0, place] for place in places]
    np.testing.assert_allclose(found, np.stack(expected), rtol=0, atol=1e-5)


def words_of(draw: np.random.Generator, count: int) -> Asked:
    """Rows in which a word is "even" or "odd", as its id is, and one row that asks for what training never said."""
    rows = [[2, *draw.integers(5, 35, 6), 3] for _ in range(count)]
    answers = [("even", "odd")[int(word) % 2] for row in rows for word in row[1:-1]]
    return asked_of(rows, [range(1, 7)] * count, answers)


def test_what_the_embeddings_say_is_found_and_what_training_never_said_is_not() -> None:
    config = small_encoder()
    params: PyTree = nn.unbox(probes.init_encoder(jax.random.key(3), config))
    # Each id's parity is written into its embedding.
    params["embeddings"]["word_embeddings"] = np.where(np.arange(64)[:, None] % 2, 1.0, -1.0) * np.ones(
        (1, 8), np.float32
    ) * [1, 0, 0, 0, 0, 0, 0, 0] + 0.01 * np.asarray(params["embeddings"]["word_embeddings"])
    train, dev, test = (words_of(np.random.default_rng(seed), count) for seed, count in ((1, 30), (2, 10), (3, 10)))
    # A quarter of what is asked on test has an answer that training never gave.
    test = test._replace(answers=["other"] * 15 + test.answers[15:])
    scores = probes.probe_layers(
        params,
        config,
        {"train": train, "dev": dev, "test": test},
        left_to_right=False,
        penalty=0.1,
        max_iterations=100,
        batch_size=16,
    )
    assert [score.layer for score in scores] == [0, 1, 2]
    assert (scores[0].dev, scores[0].test) == (100.0, 75.0)


def test_the_layer_is_chosen_on_dev() -> None:
    scores = [LayerScore(0, 60.0, 90.0, 1), LayerScore(1, 80.0, 70.0, 1), LayerScore(2, 80.0, 95.0, 1)]
    assert probes.best_layer(scores) == scores[1]


def test_a_word_is_asked_at_its_first_piece_and_a_token_under_its_mask() -> None:
    sentences = [TaggedSentence(("the", "cats", "sat"), ("DT", "NNS", "VBD"), 1), TaggedSentence(("sat",), ("VBD",), 5)]
    made = ask("pos", sentences, VOCABULARY, length=5, mask_prob=0.0, draw=np.random.default_rng(0))
    # The third word has no room behind [CLS] the cat ##s.
    assert [row["input_ids"].tolist() for row in made.rows] == [[2, THE, CAT, CATS, 3], [2, SAT, 3]]
    assert [places.tolist() for places in made.positions] == [[1, 2], [1]]
    assert (made.answers, made.num_cut) == (["DT", "NNS", "VBD"], 1)
    masked = ask("words", sentences, VOCABULARY, length=8, mask_prob=1.0, draw=np.random.default_rng(0))
    assert [row["input_ids"].tolist() for row in masked.rows] == [[2, 4, 4, 4, 4, 3], [2, 4, 3]]
    assert masked.answers == ["the", "cat", "##s", "sat", "sat"]
    some = ask("words", sentences * 500, VOCABULARY, length=8, mask_prob=0.15, draw=np.random.default_rng(0))
    assert len(some.answers) == pytest.approx(0.15 * 2500, rel=0.15)
    assert all((row["input_ids"][places] == 4).all() for row, places in zip(some.rows, some.positions, strict=True))


PARTS = {"the": "DT", "cat": "NN", "dog": "NN", "sat": "VBD", "ran": "VBD", "home": "NN"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-trained pair, and sentences in the columns of CoNLL-2000."""
    path = tmp_path_factory.mktemp("probes")
    write_tuned(path / "pair", "pretraining", labels=(), task=None)
    draw = np.random.default_rng(1)
    (path / "data/chunk").mkdir(parents=True)
    for split, count in (("train", 30), ("test", 8)):
        sentences = [draw.choice(list(PARTS), 5) for _ in range(count)]
        lines = ["".join(f"{word} {PARTS[word]} B-{PARTS[word][0]}P\n" for word in words) for words in sentences]
        (path / f"data/chunk/{split}.txt").write_text("\n".join(lines))
    return path


@pytest.fixture
def probe(folder: Path) -> Callable[..., int]:
    def run(out: str, *bindings: str, task: str = "pos", init_from: str | None = "pair") -> int:
        start = None if init_from is None else str(folder / init_from)
        given = {"TASK": task, "INIT_FROM": start, "MODEL_DIR": str(folder / out), "DATA_DIR": str(folder / "data")}
        named = [f"{name}={value!r}" for name, value in given.items()]
        return main(["probe", *(f"--gin.{binding}" for binding in [*named, "TRAIN_SENTENCES=20", *bindings])])

    return run


def test_every_layer_is_scored_and_the_best_on_dev_is_the_result(
    folder: Path, probe: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe("pos", "NUM_SEEDS=2", "PENALTY=0.1") == 0
    # As `electra compare` reads it.
    found = read_json(folder / "pos/results.json", ScoredSeeds)
    assert (found["task"], found["main_metric"], found["split"]) == ("pos", "accuracy", "test")
    # A grid of settings is not chosen by what is reported.
    assert found["tuning_metric"] == "dev_accuracy"
    # A tenth of the training sentences is the dev split.
    assert found["num_examples"] == {"train": 27, "dev": 3, "test": 8}
    assert [seed["seed"] for seed in found["seeds"]] == [0, 1]
    for seed in found["seeds"]:
        assert seed["num_asked"] == {"train": 100, "dev": 15, "test": 40}
        layers = {layer["layer"]: layer for layer in seed["layers"]}
        assert list(layers) == [0, 1, 2]
        best = layers[seed["best_layer"]]
        assert best["dev"] == max(layer["dev"] for layer in layers.values())
        assert seed["metrics"] == {"accuracy": best["test"], "dev_accuracy": best["dev"]}
        # What a word is stands in its embedding.
        assert layers[0]["test"] == 100.0
    shown = capsys.readouterr().out
    # What is to be done is said before it is done.
    assert shown.startswith("seed 0: answers at 3 layers: 100 of train, 15 of dev, 40 of test")
    assert "is best on dev, and finds" in shown
    assert json.loads((folder / "pos/run.json").read_text())["probe"] == "pos"
    # The same again, to the last digit.
    before = (folder / "pos/results.json").read_text()
    assert probe("pos", "NUM_SEEDS=2", "PENALTY=0.1") == 0
    assert (folder / "pos/results.json").read_text() == before


def test_random_weights_and_words_under_masks(folder: Path, probe: Callable[..., int]) -> None:
    sizes = {"hidden_size": 16, "embedding_size": 8, "num_attention_heads": 2, "intermediate_size": 32}
    sizes |= {"max_position_embeddings": 32}
    random = [*(f"encoder.EncoderConfig.{name}={value}" for name, value in sizes.items()), "VOCAB_SIZE=64"]
    random.append(f"TOKENIZER={str(folder / 'pair/vocab.txt')!r}")
    given = {"TASK": "words", "INIT_FROM": None, "MODEL_DIR": str(folder / "words"), "DATA_DIR": str(folder / "data")}
    bindings = [*(f"{name}={value!r}" for name, value in given.items()), "TRAIN_SENTENCES=20", *random, "NUM_SEEDS=2"]
    arguments = [f"--gin.{binding}" for binding in bindings]
    assert main(["probe", "--gin_file=gin/models/tiny.gin", *arguments]) == 0
    first, second = json.loads((folder / "words/results.json").read_text())["seeds"]
    assert first["num_asked"]["test"] > 1
    # Other masks, other weights.
    assert (first["num_asked"], first["layers"]) != (second["num_asked"], second["layers"])


@pytest.mark.parametrize(
    ("arguments", "bindings", "sentence"),
    [
        ({"task": "ner"}, (), "TASK is 'ner': a probe is one of chunk, pos, words"),
        ({"init_from": "nowhere"}, (), "there is no such directory"),
        ({"init_from": None}, (), "random weights need sizes and a vocabulary"),
        ({}, ("DATA_DIR='nowhere'",), "pos has no train split: it is not in nowhere as chunk/"),
        ({}, ("DEV_FRACTION=0.0",), "pos has no dev split"),
        ({}, ("SOURCE='tfds'",), "a probe reads files"),
        ({"task": "words"}, ("probing.ProbeRun.mask_prob=0.001",), "asks nothing in"),
        ({"out": "pair"}, (), "holds a run of another kind: use another MODEL_DIR"),
    ],
)
def test_what_cannot_be_probed(
    arguments: dict[str, str | None],
    bindings: tuple[str, ...],
    sentence: str,
    probe: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert probe(arguments.get("out", "bad"), *bindings, **{k: v for k, v in arguments.items() if k != "out"}) == 2
    assert sentence in capsys.readouterr().err
