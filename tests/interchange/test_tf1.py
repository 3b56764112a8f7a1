"""Import and export of TensorFlow 1's checkpoints through the command line."""

import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import electra_jax
from electra_jax.checkpoints import orbax_store
from electra_jax.cli import main
from electra_jax.interchange import tf1
from support.hf_models import refusal


class TestTensorFlow:
    def write(self, folder: Path, variables: dict[str, np.ndarray], step: int) -> Path:
        """Write a checkpoint as the original does."""
        from electra_jax.tasks.host_tensorflow import tf

        folder.mkdir()
        tf.raw_ops.SaveV2(
            prefix=str(folder / f"model.ckpt-{step}"),
            tensor_names=list(variables),
            shape_and_slices=[""] * len(variables),
            tensors=[tf.constant(value) for value in variables.values()],
        )
        return folder

    def variables(self, pair: tuple[Path, Path], tmp_path: Path, *, moments: bool) -> dict[str, np.ndarray]:
        assert main(["import", *map(str, pair), str(tmp_path / "first")]) == 0
        assert main(["export", str(tmp_path / "first"), str(tmp_path / "tf"), "--format", "tf1"]) == 0
        variables = tf1.read_variables(tmp_path / "tf" / "model.ckpt-0")
        weights = {name: value for name, value in variables.items() if not tf1.is_slot(name) and name != "global_step"}
        draw = np.random.default_rng(1)
        if moments:
            for name, value in list(weights.items()):
                for slot in tf1.SLOTS:
                    weights[f"{name}/{slot}"] = np.abs(draw.standard_normal(value.shape)).astype(np.float32)
        weights["global_step"] = np.asarray(700, np.int64)
        return weights

    def test_moments_and_step_come_through(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        variables = self.variables(pair, tmp_path, moments=True)
        folder = self.write(tmp_path / "src", variables, 700)
        shutil.copy(pair[0] / "vocab.txt", folder)
        # A head count that shapes do not tell.
        (folder / "bert_config.json").write_text(json.dumps({"hidden_size": 16, "num_attention_heads": 2}))
        assert main(["import", str(folder), str(tmp_path / "model")]) == 0
        model = electra_jax.load(tmp_path / "model")
        assert model.step == 700
        assert model.description.discriminator.num_attention_heads == 2
        moments = orbax_store.read_moments(tmp_path / "model")
        np.testing.assert_array_equal(
            moments[1]["embeddings"]["word_embeddings"], variables["electra/embeddings/word_embeddings/adam_v"]
        )
        assert main(["export", str(tmp_path / "model"), str(tmp_path / "out"), "--format", "tf1"]) == 0
        after = tf1.read_variables(tmp_path / "out" / "model.ckpt-700")
        assert after.keys() == variables.keys()
        assert all(after[name].tobytes() == np.asarray(variables[name]).tobytes() for name in variables)

    def test_without_moments_starts_at_step_0(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        folder = self.write(tmp_path / "src", self.variables(pair, tmp_path, moments=False), 700)
        assert main(["import", str(folder / "model.ckpt-700"), str(tmp_path / "model")]) == 0
        assert electra_jax.load(tmp_path / "model").step == 0
        moments = orbax_store.read_moments(tmp_path / "model")
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(moments))

    def test_bert_fills_the_encoder(
        self, pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        weights = self.variables(pair, tmp_path, moments=False)
        bert = {
            name.replace("electra/", "bert/"): value
            for name, value in weights.items()
            if name.startswith("electra/") and "embeddings_project" not in name
        }
        for name in list(bert):
            if name.startswith("bert/embeddings/"):
                bert[name] = np.ones((*bert[name].shape[:-1], 16), np.float32)
        bert["bert/pooler/dense/bias"] = np.zeros(16, np.float32)
        folder = self.write(tmp_path / "src", bert, 0)
        assert main(["import", str(folder), str(tmp_path / "model")]) == 0
        assert "bert/pooler/dense/bias" in capsys.readouterr().err
        params = electra_jax.load(tmp_path / "model").params
        kernel = bert["bert/encoder/layer_1/intermediate/dense/kernel"]
        np.testing.assert_array_equal(params["discriminator"]["encoder"]["layers"]["intermediate"]["kernel"][1], kernel)

    def test_damaged(self, pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = self.write(tmp_path / "src", self.variables(pair, tmp_path, moments=False), 7)
        data = next(folder.glob("*.data-*"))
        data.write_bytes(data.read_bytes()[:100])
        assert "cut off or damaged" in refusal(capsys, "import", folder, tmp_path / "model")
        for file in (data, data.with_name("model.ckpt-7.index")):
            file.unlink()
            os.mkfifo(file)
            # TensorFlow would wait for its writer.
            assert "it is a pipe or a device" in refusal(capsys, "import", folder, tmp_path / "model")
            file.unlink()
            file.write_bytes(b"")
        (folder / "checkpoint").write_bytes(b'model_checkpoint_path: "\xff"')
        assert "checkpoint is not UTF-8 at byte 24: remove it" in refusal(capsys, "import", folder, tmp_path / "model")

    def test_a_folder_without_the_file_that_chooses(
        self, pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        variables = self.variables(pair, tmp_path, moments=False)
        folder = self.write(tmp_path / "src", variables, 7)
        assert not (folder / "checkpoint").exists()
        assert main(["import", str(folder), str(tmp_path / "alone")]) == 0
        for path in list(folder.iterdir()):
            shutil.copy(path, path.with_name(path.name.replace("-7.", "-9.")))
        error = refusal(capsys, "import", folder, tmp_path / "model")
        assert (
            f"holds several checkpoints (model.ckpt-7, model.ckpt-9): give one of them, as {folder}/model.ckpt-7"
            in error
        )
        assert main(["import", str(folder / "model.ckpt-9"), str(tmp_path / "model")]) == 0
