"""Import and export through the command line: what stays the same, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

import electra_jax
from electra_jax.checkpoints import orbax_store
from electra_jax.cli import main
from electra_jax.config import gin_files
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.interchange import hf_classes
from support.hf_models import SUBSET, refusal, write_vocabulary


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_tensors(folder: Path, **changes: np.ndarray | None) -> None:
    stored = load_file(folder / "model.safetensors")
    for name, value in changes.items():
        stored.pop(name, None)
        if value is not None:
            stored[name] = value
    save_file(stored, folder / "model.safetensors")


WORDS = "electra.embeddings.word_embeddings.weight"
BIAS = "electra.encoder.layer.0.output.dense.bias"


class TestTransformers:
    def test_pair_makes_one_model_and_two_directories_again(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        assert main(["import", *map(str, pair), str(tmp_path / "model")]) == 0
        model = electra_jax.load(tmp_path / "model")
        assert model.description.kind == "pretraining"
        assert not model.description.generator_embeddings
        assert main(["export", str(tmp_path / "model"), str(tmp_path / "out"), "--format", "transformers"]) == 0
        for folder, name in zip(pair, ("discriminator", "generator"), strict=True):
            before, after = (
                load_file(folder / "model.safetensors"),
                load_file(tmp_path / "out" / name / "model.safetensors"),
            )
            assert {key: value.tobytes() for key, value in before.items()} == {
                key: value.tobytes() for key, value in after.items()
            }
            assert (tmp_path / "out" / name / "vocab.txt").read_text() == (folder / "vocab.txt").read_text()
            modes = {path.stat().st_mode for path in (tmp_path / "out" / name).iterdir()}
            assert len(modes) == 1, "whoever may read one file may read all"
            config, first = (json.loads((at / "config.json").read_text()) for at in (tmp_path / "out" / name, folder))
            assert {key: first[key] for key in config.keys() & first.keys()} == {
                key: config[key] for key in config.keys() & first.keys()
            }
        # The folder of a pair is a source again.
        assert main(["import", str(tmp_path / "out"), str(tmp_path / "again")]) == 0
        again = electra_jax.load(tmp_path / "again")
        assert jax.tree.all(jax.tree.map(np.array_equal, model.params, again.params))

    def test_pair_restores_as_a_training_state_of_its_own_config(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        """Restore as `electra pretrain --gin.MODEL_DIR=DEST` does."""
        from electra_jax.pretraining import steps
        from electra_jax.training.optimizer import make_optimizer

        assert main(["import", *map(str, pair), str(tmp_path / "model")]) == 0
        config = str(tmp_path / "model" / "config.gin")
        run = gin_files.build(PretrainingRun, [config], ['CORPUS="embedded"', 'MODEL_DIR="run"'], search_paths=[])
        state = jax.eval_shape(
            lambda key: steps.init_state(key, run.model, make_optimizer(run.optimizer), 8), jax.random.key(0)
        )
        from flax import linen as nn

        restored = orbax_store.restore_latest(tmp_path / "model", nn.unbox(state))
        assert restored.step == 0
        assert not orbax_store.has_place(restored.data_state)
        model = electra_jax.load(tmp_path / "model")
        ours, theirs = (flatten_dict(tree, sep="/") for tree in (model.params, restored.state.params))
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[path], theirs[path]) for path in ours)

    def test_pair_with_different_embeddings_keeps_both(self, tmp_path: Path) -> None:
        folders = [SUBSET / "pretraining", SUBSET / "maskedlm"]
        assert main(["import", *map(str, folders), str(tmp_path / "model")]) == 0
        model = electra_jax.load(tmp_path / "model")
        assert model.description.generator_embeddings
        for folder in folders:
            assert main(["import", str(folder), str(tmp_path / folder.name)]) == 0
        ids = np.arange(1, 9)[None]
        lone = {folder.name: electra_jax.load(tmp_path / folder.name).logits(ids) for folder in folders}
        np.testing.assert_array_equal(model.logits(ids), lone["pretraining"])
        np.testing.assert_array_equal(model.generator_logits(ids), lone["maskedlm"])

    def test_half_precision_becomes_float32(self, source: Path, tmp_path: Path) -> None:
        half = {
            name: value.astype(ml_dtypes.bfloat16) for name, value in load_file(source / "model.safetensors").items()
        }
        save_file(half, source / "model.safetensors")
        assert main(["import", str(source), str(tmp_path / "model")]) == 0
        tables = electra_jax.load(tmp_path / "model").params["embeddings"]
        assert tables["word_embeddings"].dtype == np.float32
        np.testing.assert_array_equal(tables["word_embeddings"], half[WORDS].astype(np.float32))

    def test_old_names_are_read(self, source: Path, tmp_path: Path) -> None:
        stored = load_file(source / "model.safetensors")
        old = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
            for name, value in stored.items()
        }
        old["electra.embeddings.position_ids"] = np.arange(12)[None]
        save_file(old, source / "model.safetensors")
        assert main(["import", str(source), str(tmp_path / "old")]) == 0
        assert main(["import", str(SUBSET / "pretraining"), str(tmp_path / "new")]) == 0
        old_params, new_params = (electra_jax.load(tmp_path / name).params for name in ("old", "new"))
        assert jax.tree.all(jax.tree.map(np.array_equal, old_params, new_params))

    def test_bert_fills_the_encoder(self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        stored = load_file(source / "model.safetensors")
        size = 16
        draw = np.random.default_rng(0)
        bert = {
            name.replace("electra.", "bert."): value
            for name, value in stored.items()
            if name.startswith("electra.") and "embeddings_project" not in name
        }
        for name in list(bert):
            if name.startswith("bert.embeddings."):
                shape = (*bert[name].shape[:-1], size)
                bert[name] = draw.standard_normal(shape).astype(np.float32)
        bert["bert.pooler.dense.bias"] = np.zeros(size, np.float32)
        save_file(bert, source / "model.safetensors")
        edit_json(source / "config.json", model_type="bert", architectures=["BertForMaskedLM"], embedding_size=None)
        assert main(["import", str(source), str(tmp_path / "model")]) == 0
        assert "left over" in (error := capsys.readouterr().err)
        assert "bert.pooler.dense.bias" in error
        model = electra_jax.load(tmp_path / "model")
        assert model.description.kind == "encoder"
        np.testing.assert_array_equal(
            model.params["embeddings"]["word_embeddings"], bert["bert.embeddings.word_embeddings.weight"]
        )
        assert model.logits([[1, 2, 3]]).shape == (1, 3, size)


@pytest.mark.parametrize("head", ["NextSentencePrediction", "SequenceClassification", "QuestionAnswering"])
def test_of_bert_the_encoder_is_taken_whatever_stands_on_it(head: str) -> None:
    config = {"architectures": [f"BertFor{head}"], "model_type": "bert"}
    assert hf_classes.kind_of(config, {}, Path("config.json")) == "encoder"


@pytest.mark.parametrize("both", [True, False])
def test_tables_larger_than_the_vocabulary(
    both: bool, pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows that no token has are left out of every table, so that none of them is ever predicted."""
    for folder in pair if both else pair[:1]:
        write_vocabulary(folder, 37)
    if not both:
        (pair[1] / "vocab.txt").unlink()
    assert main(["import", *map(str, pair), str(tmp_path / "whole")]) == 0
    assert "has 40 rows and the vocabulary 37 entries: the last 3 rows" in capsys.readouterr().err
    model = electra_jax.load(tmp_path / "whole")
    assert {config.vocab_size for config in (model.description.discriminator, model.description.generator)} == {37}
    ids = np.arange(1, 9)[None]
    for folder in pair:
        (folder / "vocab.txt").unlink(missing_ok=True)
        assert main(["import", str(folder), str(tmp_path / "alone" / folder.name)]) == 0
    discriminator, generator = (electra_jax.load(tmp_path / "alone" / folder.name) for folder in pair)
    np.testing.assert_array_equal(model.logits(ids), discriminator.logits(ids))
    np.testing.assert_allclose(model.generator_logits(ids), generator.logits(ids)[..., :37], rtol=0, atol=1e-6)
    config = str(tmp_path / "whole" / "config.gin")
    given = ['CORPUS="embedded"', 'MODEL_DIR="run"']
    assert gin_files.build(PretrainingRun, [config], given, search_paths=[]).encoder.vocab_size == 37


class TestRefusals:
    """Each is refused in one sentence with exit code 2, and nothing is left at DEST."""

    @pytest.fixture(autouse=True)
    def _nothing_left(self, tmp_path: Path) -> Any:
        yield
        assert not (tmp_path / "model").exists()
        assert not list(tmp_path.glob("*.part"))

    def test_cut_off_safetensors(self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = source / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-10])
        assert "model.safetensors is cut off" in refusal(capsys, "import", source, tmp_path / "model")

    def test_unknown_architecture(self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        edit_json(source / "config.json", architectures=["RobertaForMaskedLM"], model_type="roberta")
        error = refusal(capsys, "import", source, tmp_path / "model")
        assert "RobertaForMaskedLM" in error
        assert "ElectraForPreTraining" in error

    def test_other_activation(self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        edit_json(source / "config.json", hidden_act="relu")
        assert "hidden_act = 'relu'" in refusal(capsys, "import", source, tmp_path / "model")

    def test_vocabulary_unlike_the_table(
        self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_vocabulary(source, 41)
        error = refusal(capsys, "import", source, tmp_path / "model")
        assert "41 entries" in error
        assert "40 rows" in error

    def test_config_unlike_the_table(self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        edit_json(source / "config.json", vocab_size=41)
        error = refusal(capsys, "import", source, tmp_path / "model")
        assert "vocab_size 41" in error
        assert "40 rows" in error

    @pytest.mark.parametrize(
        "labels", [["a", "b", "c"], {"LABEL_0": "a"}, {"1": "a", "2": "b", "3": "c"}, {"0": "a", "zero": "b"}, 3, "abc"]
    )
    def test_labels_without_their_numbers(
        self, labels: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = Path(shutil.copytree(SUBSET / "seqcls", tmp_path / "source"))
        edit_json(source / "config.json", id2label=labels)
        assert "should name each output by its number" in refusal(capsys, "import", source, tmp_path / "model")

    def test_a_regression_of_several_outputs(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        source = Path(shutil.copytree(SUBSET / "seqcls", tmp_path / "source"))
        edit_json(source / "config.json", problem_type="regression")
        error = refusal(capsys, "import", source, tmp_path / "model")
        assert "problem_type is 'regression' and the head has 3 outputs: only one is read" in error

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_not_a_number(self, bad: float, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        value = np.zeros(16, np.float32)
        value[3] = bad
        change_tensors(source, **{BIAS: value})
        assert BIAS in refusal(capsys, "import", source, tmp_path / "model")

    def test_missing_left_over_and_misshapen(
        self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        norm = "electra.embeddings.LayerNorm.weight"
        change_tensors(source, **{BIAS: None, norm: np.ones(9, np.float32), "stranger": np.ones(2, np.float32)})
        error = refusal(capsys, "import", source, tmp_path / "model")
        assert f"missing: {BIAS}" in error
        assert f"{norm} is (9,) and should be (8,)" in error
        assert "left over: stranger" in error

    def test_odd_sizes(self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        edit_json(source / "config.json", hidden_size="16", layer_norm_eps=None)
        error = refusal(capsys, "import", source, tmp_path / "model")
        assert "hidden_size = '16', layer_norm_eps = None should be a number" in error

    def test_a_file_where_a_folder_should_be(
        self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").write_text("mine")
        assert "cannot be used (Not a directory)" in refusal(capsys, "import", source, tmp_path / "file" / "model")

    def test_no_source(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "empty").mkdir()
        error = refusal(capsys, "import", tmp_path / "empty", tmp_path / "model")
        assert "config.json" in error
        assert "model.ckpt-*" in error
        assert "does not exist" in refusal(capsys, "import", tmp_path / "nowhere", tmp_path / "model")

    def test_two_discriminators_are_no_pair(
        self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert "a pair is" in refusal(capsys, "import", source, source, tmp_path / "model")


def test_dest_that_exists_is_left_alone(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "precious").write_text("mine")
    assert "exists" in refusal(capsys, "import", source, tmp_path / "there")
    assert main(["import", str(source), str(tmp_path / "model")]) == 0
    assert "exists" in refusal(capsys, "export", tmp_path / "model", tmp_path / "there", "--format", "transformers")
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["precious"]
