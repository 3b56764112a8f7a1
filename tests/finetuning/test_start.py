"""Where fine-tuning begins: what INIT_FROM must agree with, and which weights are taken by name."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict
from tokenizers import Tokenizer
from tokenizers import models as models_of_library

from electra_jax.checkpoints import model_dir, warm_start
from electra_jax.checkpoints.model_record import read_model_record, write_model_record
from electra_jax.config import gin_files
from electra_jax.config.finetuning import FinetuningRun
from electra_jax.errors import UserError
from electra_jax.finetuning.start import layers_unrolled, resolve_init, take_weights, warn_of_long_rows
from electra_jax.model.finetuned import FinetunedModel
from electra_jax.model.types import PyTree, Tokens
from electra_jax.tasks.tokenizer_file import load_tokenizer
from electra_jax.tasks.vocabulary import Vocabulary
from support.finetuned_model import TOKENS, text_facts, write_tuned
from support.tiny_model import small_encoder

LABELS = ("no", "yes")
SIZES = {
    name: getattr(small_encoder(), name)
    for name in ("hidden_size", "embedding_size", "num_attention_heads", "intermediate_size", "max_position_embeddings")
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pair`, `generator` and `tuned` of `small_encoder`'s sizes; the pair without a vocabulary, or having lost it."""
    folder = tmp_path_factory.mktemp("models")
    write_tuned(folder / "pair", "pretraining", labels=(), task=None)
    write_tuned(folder / "generator", "generator", labels=(), task=None)
    facts = text_facts("rte", LABELS, pair=True)
    write_tuned(folder / "tuned", "sequence_classification", labels=LABELS, task=facts)
    write_tuned(folder / "bare", "pretraining", labels=(), task=None, vocabulary=None)
    shutil.copytree(folder / "pair", folder / "lost", ignore=shutil.ignore_patterns("vocab.*"))
    # What an objective that predicts words trained is recorded as a generator; it is what the run was for.
    for source, name in (("generator", "words"), ("pair", "pretrained")):
        shutil.copytree(folder / source, folder / name)
        facts = {"made by": "electra pretrain", "sequence length": 16}
        record = dataclasses.replace(read_model_record(folder / source), facts=facts)
        write_model_record(folder / name, record)
    return folder


def write_vocabulary(path: Path, tokens: list[str], *, record: str = "") -> str:
    path.write_text("".join(f"{token}\n" for token in tokens))
    if record:
        path.with_suffix(".json").write_text(record)
    return str(path)


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., FinetuningRun]:
    """Builds the shipped run with other macros; `sizes` are those of a model's Gin file."""

    def build(*, init_from: Path | None, sizes: dict[str, int] | None = None, **macros: Any) -> FinetuningRun:
        bound = {"TASK": "rte", "MODEL_DIR": "run", "MAX_SEQ_LENGTH": 32, "INIT_FROM": init_from and str(init_from)}
        bindings = [f"{name}={value!r}" for name, value in (bound | macros).items()]
        files = ["gin/runs/finetune.gin"]
        if sizes is not None:
            files.insert(0, "gin/models/tiny.gin")
            bindings += [f"encoder.EncoderConfig.{name}={value}" for name, value in sizes.items()]
        return gin_files.build(FinetuningRun, files, bindings, search_paths=[])

    return build


Configured = Callable[..., FinetuningRun]


def test_sizes_and_vocabulary_are_the_models_own(models: Path, configured: Configured) -> None:
    encoder, vocabulary, *_ = resolve_init(configured(init_from=models / "pair", DROPOUT=0.25, DTYPE="bfloat16"))
    assert encoder.hidden_size == 16
    assert (encoder.hidden_dropout_prob, encoder.attention_probs_dropout_prob) == (0.25, 0.25)
    assert encoder.dtype == "bfloat16"
    assert vocabulary == Vocabulary(TOKENS, True, True)
    changes = {"ATTENTION": "fused", "ATTENTION_DROPOUT": 0.0, "PRNG": "rbg"}
    fused, *_ = resolve_init(configured(init_from=models / "pair", DROPOUT=0.25, **changes))
    assert (fused.attention, fused.dropout_prng) == ("fused", "rbg")
    assert (fused.hidden_dropout_prob, fused.attention_probs_dropout_prob) == (0.25, 0.0)


@pytest.mark.parametrize(
    ("macros", "unrolled"),
    [
        ({}, 2),
        ({"SCAN_UNROLL": 1}, 1),
        # No more than there are.
        ({"SCAN_UNROLL": 24}, 2),
        # Unrolled layers are not computed anew in the backward pass.
        ({"REMAT_POLICY": "minimal"}, 1),
    ],
)
def test_layers_of_a_checkpoint_are_unrolled(
    models: Path, configured: Configured, macros: dict[str, Any], unrolled: int
) -> None:
    """The checkpoint's record says 1, for those that predict."""
    assert read_model_record(models / "pretrained").encoder.num_hidden_layers == 2
    run = configured(init_from=models / "pretrained", **macros)
    assert resolve_init(run).encoder.scan_unroll == unrolled
    deep = dataclasses.replace(small_encoder(), num_hidden_layers=13)
    assert layers_unrolled(run, deep) == min(macros.get("SCAN_UNROLL", 1), 13)


def test_random_weights_are_unrolled_as_their_gin_file_says(tmp_path: Path, configured: Configured) -> None:
    file = write_vocabulary(tmp_path / "vocab.txt", TOKENS)
    sizes = SIZES | {"num_hidden_layers": 4, "scan_unroll": 2}
    random = {"init_from": None, "sizes": sizes, "TOKENIZER": file, "LOWERCASE": True, "VOCAB_SIZE": len(TOKENS)}
    assert resolve_init(configured(**random)).encoder.scan_unroll == 2
    assert resolve_init(configured(**random, SCAN_UNROLL=1)).encoder.scan_unroll == 1


def test_rows_longer_than_those_of_pre_training_are_warned_of(
    models: Path, configured: Configured, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = resolve_init(configured(init_from=models / "pair"))
    known = resolve_init(configured(init_from=models / "pretrained"))
    assert (unknown.pretraining_length, known.pretraining_length) == (None, 16)
    for origin, longest in ((unknown, 32), (known, 16), (known, 17)):
        warn_of_long_rows(origin, longest)
    (said,) = caplog.messages
    assert said.startswith("rows of up to 17 tokens are longer than those of pre-training, 16")


def test_a_vocabulary_is_known_by_its_entries_and_its_casing(models: Path, configured: Configured) -> None:
    found = resolve_init(configured(init_from=models / "pair"))
    vocabulary = found.vocabulary
    others = [
        dataclasses.replace(vocabulary, tokens=[*vocabulary.tokens[:-1], "other"]),
        dataclasses.replace(vocabulary, lowercase=not vocabulary.lowercase),
        dataclasses.replace(vocabulary, strip_accents=not vocabulary.strip_accents),
    ]
    assert found.vocabulary_hash == resolve_init(configured(init_from=models / "tuned")).vocabulary_hash
    assert len({found.vocabulary_hash, *(found._replace(vocabulary=other).vocabulary_hash for other in others)}) == 4


def test_what_agrees_may_be_given_again(models: Path, tmp_path: Path, configured: Configured) -> None:
    file = write_vocabulary(tmp_path / "vocab.txt", TOKENS)
    sizes = {"VOCAB_SIZE": 64, "sizes": SIZES, "VOCAB_FILE": file, "LOWERCASE": True}
    assert resolve_init(configured(init_from=models / "pair", **sizes)) == resolve_init(
        configured(init_from=models / "pair")
    )
    bare = resolve_init(configured(init_from=models / "bare", VOCAB_FILE=file))
    assert bare.vocabulary == Vocabulary(TOKENS, True, True)
    lost = resolve_init(configured(init_from=models / "lost", VOCAB_FILE=file))
    assert lost.vocabulary == Vocabulary(TOKENS, True, True)


def test_random_weights(tmp_path: Path, configured: Configured) -> None:
    file = write_vocabulary(tmp_path / "vocab.txt", TOKENS)
    run = configured(init_from=None, sizes=SIZES, VOCAB_SIZE=64, VOCAB_FILE=file, LOWERCASE=False)
    encoder, vocabulary, *_ = resolve_init(run)
    assert (encoder.intermediate_size, encoder.vocab_size) == (32, 64)
    assert vocabulary == Vocabulary(TOKENS, False, False)


@pytest.mark.parametrize(
    ("macros", "sentence"),
    [
        ({"init_from": "pair", "VOCAB_FILE": "other"}, "is not the vocabulary that {models}/pair was trained with"),
        ({"init_from": "pair", "VOCAB_FILE": "shorter"}, "(63 entries against 64, or others): leave TOKENIZER out"),
        ({"init_from": "bare", "VOCAB_FILE": "shorter"}, "63 entries and the embedding table of {models}/bare 64 rows"),
        # The checkpoint remembers what its directory has lost.
        ({"init_from": "lost", "VOCAB_FILE": "other"}, "is not the one that {models}/lost was trained with"),
        ({"init_from": "lost", "VOCAB_FILE": "cased"}, "is not the one that {models}/lost was trained with"),
        ({"init_from": "bare"}, "{models}/bare has no vocabulary: name the one"),
        ({"init_from": "pair", "LOWERCASE": False}, "lower-cased text, and LOWERCASE says otherwise"),
        ({"init_from": "pair", "VOCAB_FILE": "cased"}, "lower-cased text, and {files}/cased.txt says otherwise"),
        ({"init_from": "pair", "sizes": {"hidden_size": 32}}, "hidden_size 16 there, 32 here; intermediate_size 32"),
        ({"init_from": "generator"}, "{models}/generator holds a generator only"),
        ({"init_from": "nowhere"}, "there is no such directory"),
        ({"init_from": "pair", "MAX_SEQ_LENGTH": 33}, "rows of 33 tokens are longer than the model's 32 positions"),
        ({"init_from": "pair", "MAX_SEQ_LENGTH": None}, "rows of 128 tokens are longer"),
        ({"init_from": None, "VOCAB_FILE": "same"}, "random weights need sizes and a vocabulary"),
        ({"init_from": None, "sizes": SIZES}, "random weights need sizes and a vocabulary"),
        ({"init_from": None, "sizes": SIZES, "VOCAB_FILE": "shorter"}, "set --gin.VOCAB_SIZE=63"),
    ],
)
def test_what_disagrees_is_refused(
    macros: dict[str, Any], sentence: str, models: Path, tmp_path: Path, configured: Configured
) -> None:
    contents = {"same": TOKENS, "cased": TOKENS, "other": [*TOKENS[:-1], "zebra"], "shorter": TOKENS[:-1]}
    given = dict(macros)
    if "VOCAB_FILE" in given:
        record = '{"lowercase": false, "strip_accents": false}' if given["VOCAB_FILE"] == "cased" else ""
        path = tmp_path / f"{given['VOCAB_FILE']}.txt"
        given["VOCAB_FILE"] = write_vocabulary(path, contents[given["VOCAB_FILE"]], record=record)
    if given["init_from"] is not None:
        given["init_from"] = models / given["init_from"]
    if "sizes" in given:
        given["sizes"] = {**SIZES, **given["sizes"], "intermediate_size": 48} if macros["init_from"] else SIZES
        given["VOCAB_SIZE"] = 64
    with pytest.raises(UserError) as refused:
        resolve_init(configured(**given))
    assert sentence.format(models=models, files=tmp_path) in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def unigram(folder: Path, *, first_score: float = -1.0) -> str:
    """The tokenizer.json of as many pieces as the models have rows."""
    scores = [first_score, *[-2.0] * (len(TOKENS) - 1)]
    tokenizer = Tokenizer(models_of_library.Unigram(list(zip(TOKENS, scores, strict=True)), 1, False))
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return str(folder / "tokenizer.json")


def test_the_tokenizer_of_a_directory_is_compared_by_its_ids(
    models: Path, tmp_path: Path, configured: Configured
) -> None:
    file = unigram(tmp_path / "same")
    shutil.copytree(models / "bare", tmp_path / "model")
    shutil.copy(file, tmp_path / "model")
    found = resolve_init(configured(init_from=tmp_path / "model")).vocabulary
    assert found.fingerprint == load_tokenizer(file, lowercase=None).fingerprint
    assert resolve_init(configured(init_from=tmp_path / "model", TOKENIZER=file)).vocabulary == found
    assert resolve_init(configured(init_from=models / "bare", TOKENIZER=file)).vocabulary == found
    random = configured(init_from=None, sizes=SIZES, VOCAB_SIZE=64, TOKENIZER=file)
    assert resolve_init(random).vocabulary == found
    # The same pieces with other scores are another tokenizer, and so is a vocab.txt of the same entries.
    for other in (unigram(tmp_path / "other", first_score=-3.0), write_vocabulary(tmp_path / "vocab.txt", TOKENS)):
        with pytest.raises(UserError, match=r"is not the vocabulary that .* was trained with"):
            resolve_init(configured(init_from=tmp_path / "model", TOKENIZER=other))
    with pytest.raises(UserError, match=r"has a tokenizer\.json: leave LOWERCASE out"):
        resolve_init(configured(init_from=tmp_path / "model", LOWERCASE=True))


def named(tree: PyTree) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf) for path, leaf in flatten_dict(tree, sep="/").items()}


@pytest.fixture(scope="module")
def params(models: Path) -> PyTree:
    """Freshly made, for the head of `tuned`."""
    description = model_dir.load(models / "tuned").description
    model = FinetunedModel(description.discriminator, description.head)
    ids = np.zeros((1, 1), np.int32)
    shapes = jax.eval_shape(
        lambda: nn.unbox(model.init(jax.random.key(0), Tokens(ids, ids, ids + 1), deterministic=True)["params"])
    )
    draw = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jax.device_put(draw.normal(size=leaf.shape).astype(np.float32)), shapes)


@pytest.mark.parametrize(
    ("source", "left"), [("pair", "generator/encoder, generator/head, discriminator/head"), ("tuned", "head/")]
)
def test_weights_are_taken_by_name_and_never_the_head(
    source: str, left: str, models: Path, params: PyTree, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a model that was fine-tuned the head would fit, but it is of another task."""
    taken = named(take_weights(str(models / source), params, quiet=False))
    stored, before = named(model_dir.load(models / source).params), named(params)
    assert taken.keys() == before.keys()
    heads = {name for name in taken if name.startswith("head/")}
    assert heads
    for name, values in taken.items():
        np.testing.assert_array_equal(values, (before if name in heads else stored)[name], err_msg=name)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"weights from {models / source}: the embeddings and the encoder"
    assert said[1] == "  new:  head/dense, head/prediction"
    assert said[2].startswith("  left: ")
    assert all(part in said[2] for part in left.split(", "))


def test_pre_training_keeps_the_tower_that_the_run_was_for(models: Path) -> None:
    words, pair = model_dir.load(models / "words"), model_dir.load(models / "pretrained")
    encoder, params = warm_start.encoder_for_finetuning(words)
    assert encoder == words.description.generator
    tower = {name.removeprefix("generator/"): values for name, values in named(words.params).items()}
    assert {name.removeprefix("discriminator/"): id(values) for name, values in named(params).items()} == {
        name: id(values) for name, values in tower.items() if name.startswith(("encoder/", "embeddings/"))
    }
    # A pair's generator is not what it was for, and of one alone nobody knows what is.
    assert warm_start.encoder_for_finetuning(pair) == (pair.description.discriminator, pair.params)
    assert warm_start.encoder_for_finetuning(model_dir.load(models / "generator"))[0] is None


def test_fine_tuning_takes_the_tower_that_predicted_words(
    models: Path, params: PyTree, configured: Configured, capsys: pytest.CaptureFixture[str]
) -> None:
    assert resolve_init(configured(init_from=models / "words")).encoder.hidden_size == 16
    taken, stored = (
        named(take_weights(str(models / "words"), params, quiet=False)),
        named(model_dir.load(models / "words").params),
    )
    encoder = [name for name in taken if name.startswith("discriminator/encoder/")]
    assert encoder
    for name in encoder:
        np.testing.assert_array_equal(taken[name], stored[name.replace("discriminator", "generator")], err_msg=name)
    assert capsys.readouterr().out.splitlines()[1:] == ["  new:  head/dense, head/prediction", "  left: nothing"]


def test_what_is_said_of_the_first_seed_alone(models: Path, params: PyTree, capsys: pytest.CaptureFixture[str]) -> None:
    take_weights(str(models / "pair"), params, quiet=True)
    assert take_weights(None, params, quiet=True) is params
    assert capsys.readouterr().out == ""
    assert take_weights(None, params, quiet=False) is params
    assert capsys.readouterr().out == "weights: all of them random (INIT_FROM is None)\n"


def test_a_parameter_of_another_shape_is_refused(models: Path, params: PyTree) -> None:
    longer = jax.numpy.zeros((48, 8))
    embeddings = params["embeddings"] | {"position_embeddings": longer}
    with pytest.raises(UserError, match=r"embeddings/position_embeddings \(32, 8\) there, \(48, 8\) here"):
        take_weights(str(models / "pair"), params | {"embeddings": embeddings}, quiet=True)
