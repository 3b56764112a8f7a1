"""Compare the original's fine-tuning heads and checkpoints with its recorded numbers.

Every option set of the question-answering head over recorded hidden states; every recorded whole model, written as a
TensorFlow checkpoint from the oracle's recipe and imported through the command line; and its pre-training checkpoint
against the same weights as `transformers` directories.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import electra_jax
from electra_jax.cli import main
from electra_jax.interchange import layout, tf1, tf1_config
from electra_jax.model.heads import make_head, span_losses
from electra_jax.model.types import Tokens
from support.parity_case import discover, recipe
from support.shared import ORACLE, skipped
from support.tiny_model import encoder_config, head_config

LOGITS, LOSSES, GRADIENTS = 2e-5, 1e-5, 3e-6
MASKED = -500.0  # logits below it are those of question tokens, 1000 lower, where a float32 is 6e-5 wide


def cases_of(path: Path) -> list[str]:
    with np.load(path) as file:
        return sorted({name.split("/")[0] for name in file.files if "/" in name})


def head_cases() -> list:
    paths = sorted(ORACLE.glob("finetune/qa_head*.npz"))
    if not paths:
        return [skipped(ORACLE / "finetune")]
    return [pytest.param((path, name), id=f"{path.stem}-{name}") for path in paths for name in cases_of(path)]


def close_logits(ours: np.ndarray, recorded: np.ndarray, what: str) -> None:
    seen = recorded > MASKED
    np.testing.assert_allclose(np.asarray(ours)[seen], recorded[seen], rtol=0, atol=LOGITS, err_msg=what)
    np.testing.assert_array_equal(np.asarray(ours) > MASKED, seen, err_msg=what)


class TestQuestionAnswering:
    @pytest.fixture(params=head_cases())
    def recorded(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        path, name = request.param
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files}
        hidden = arrays["hidden"]
        variables = {
            key.removeprefix(f"{name}/train/var/"): value
            for key, value in arrays.items()
            if key.startswith(f"{name}/train/var/")
        }
        config = encoder_config(
            vocab_size=10,
            hidden_size=hidden.shape[-1],
            embedding_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
            max_position_embeddings=hidden.shape[1],
        )
        task = next(iter(variables)).split("/")[1]
        told = tf1_config.head_config(variables, task)
        beam = arrays[f"{name}/eval/out/start_top_index"].shape[1]
        settings = head_config(
            told.kind,
            dropout_prob=0.0,
            mask_questions=True,
            final_sep_answers=True,
            answerable=told.answerable,
            beam_size=beam,
        )
        head = make_head(settings, config)
        ids = jnp.zeros(hidden.shape[:2], jnp.int32)
        tokens = Tokens(
            ids, jnp.asarray(arrays["segment_ids"], jnp.int32), jnp.asarray(arrays["input_mask"], jnp.int32)
        )
        shapes = jax.eval_shape(
            lambda: head.init(jax.random.key(0), jnp.asarray(hidden), tokens, deterministic=True)["params"]
        )
        from flax import linen as nn

        template = {"head": nn.unbox(shapes)}
        names = tf1.head_layout(settings, template, task=task)
        assert not layout.check(variables, names, name)
        params = layout.assemble(variables, names, template)["head"]
        return {"arrays": arrays, "name": name, "head": head, "params": params, "tokens": tokens, "names": names}

    def apply(self, recorded: dict[str, Any], params: Any, hidden: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        joint = recorded["head"].head.kind == "joint_question_answering"
        starts = {"start_positions_B": jnp.asarray(recorded["arrays"]["start_positions"])} if joint and train else {}
        return recorded["head"].apply({"params": params}, hidden, recorded["tokens"], deterministic=True, **starts)

    def test_logits(self, recorded: dict[str, Any]) -> None:
        arrays, name = recorded["arrays"], recorded["name"]
        hidden = jnp.asarray(arrays["hidden"])
        for mode in ("train", "eval"):
            ours = self.apply(recorded, recorded["params"], hidden, train=mode == "train")
            for key, values in ours.items():
                theirs = arrays[f"{name}/{mode}/out/{key}"]
                if key.endswith("_index"):
                    # Where fewer than a beam may be an answer, the rest are ties at 1000 less.
                    seen = arrays[f"{name}/{mode}/out/{key.replace('index', 'log_probs')}"] > MASKED
                    np.testing.assert_array_equal(np.asarray(values)[seen], theirs[seen], err_msg=f"{mode} {key}")
                else:
                    close_logits(values, theirs, f"{mode} {key}")

    def test_loss_and_gradients(self, recorded: dict[str, Any]) -> None:
        arrays, name = recorded["arrays"], recorded["name"]
        targets = [jnp.asarray(arrays[key]) for key in ("start_positions", "end_positions", "is_impossible")]

        def loss(params: Any, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
            losses_B = span_losses(self.apply(recorded, params, hidden, train=True), *targets, answerable_weight=0.5)
            return losses_B.sum(), losses_B

        run = jax.grad(loss, argnums=(0, 1), has_aux=True)
        (gradient, hidden_gradient), losses_B = run(recorded["params"], jnp.asarray(arrays["hidden"]))
        np.testing.assert_allclose(losses_B, arrays[f"{name}/train/losses"], rtol=0, atol=LOSSES)
        ours = {
            f"grad/{key}": value for key, value in layout.disassemble({"head": gradient}, recorded["names"]).items()
        }
        ours["grad_hidden"] = np.asarray(hidden_gradient)
        largest = max(np.abs(arrays[f"{name}/train/{key}"]).max() for key in ours)
        for key, value in ours.items():
            theirs = arrays[f"{name}/train/{key}"]
            scale = np.abs(theirs).max()
            if scale < 1e-6 * largest:
                continue  # the bias of a softmax over positions: zero in exact arithmetic
            # The sum or the mean over rows: whichever was recorded, the same for every variable.
            np.testing.assert_allclose(value, theirs, rtol=0, atol=GRADIENTS * scale, err_msg=key)


class TestWholeModels:
    @pytest.mark.parametrize("path", discover("finetune/finetune_model_*.npz"))
    def test_logits_of_an_imported_checkpoint(self, path: Path, tmp_path: Path) -> None:
        from electra_jax.tasks.host_tensorflow import tf

        shapes = json.loads(path.with_suffix("").with_suffix(".variables.json").read_text())
        task = next(name.split("/")[1] for name in shapes if name.startswith("task_specific/"))
        variables = {name: np.asarray(recipe(name, shape), np.float32) for name, shape in shapes.items()}
        tf.raw_ops.SaveV2(
            prefix=str(tmp_path / "model.ckpt-3"),
            tensor_names=list(variables),
            shape_and_slices=[""] * len(variables),
            tensors=list(variables.values()),
        )
        assert main(["import", str(tmp_path / "model.ckpt-3"), str(tmp_path / "model")]) == 0
        model = electra_jax.load(tmp_path / "model")
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        ours = model.logits(*(arrays[f"in/{name}"] for name in ("input_ids", "input_mask", "segment_ids")))
        if isinstance(ours, dict):
            for name in ("start_logits", "answerable_logit"):
                close_logits(ours[name], arrays[f"out/{task}/{name}"], name)
        else:
            if ours.ndim == 3:  # recorded at the first piece of each word, in the order of the words
                positions = arrays[f"in/{task}_labeled_positions"]
                ours = np.take_along_axis(ours, positions[..., None], axis=1)
            np.testing.assert_allclose(ours, arrays[f"out/{task}/logits"], rtol=0, atol=LOGITS)
        assert main(["export", str(tmp_path / "model"), str(tmp_path / "out"), "--format", "tf1"]) == 0
        after = tf1.read_variables(tmp_path / "out" / "model.ckpt-0")
        assert after.keys() - variables.keys() == {"global_step"}
        assert all(after[name].tobytes() == variables[name].tobytes() for name in variables)
        if model.description.head.kind in ("joint_question_answering", "sequence_classification_reference"):
            command = ["export", str(tmp_path / "model"), str(tmp_path / "hf"), "--format", "transformers"]
            assert main(command) == 2
            assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize("path", discover("tf_pretrain/*/*.index"))
def test_checkpoint_and_export_have_the_same_variables(path: Path, tmp_path: Path) -> None:
    assert main(["import", str(path.parent), str(tmp_path / "model")]) == 0
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "out"), "--format", "tf1"]) == 0
    before = tf1.read_variables(path.with_suffix(""))
    after = tf1.read_variables(tf1.checkpoint_prefix(tmp_path / "out"))
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.dtype == after[name].dtype
        assert value.tobytes() == after[name].tobytes(), name


@pytest.mark.parametrize("path", discover("hf/from_*/check.json"))
def test_both_forms_of_a_checkpoint_give_the_same_model(path: Path, tmp_path: Path) -> None:
    checkpoint = ORACLE / "tf_pretrain" / path.parent.name.removeprefix("from_tf_").join(("ckpt_", ""))
    assert main(["import", str(path.parent), str(tmp_path / "hf")]) == 0
    assert main(["import", str(checkpoint), str(tmp_path / "tf")]) == 0
    ours, theirs = (flatten_dict(electra_jax.load(tmp_path / name).params, sep="/") for name in ("hf", "tf"))
    assert ours.keys() == theirs.keys()
    for name, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[name], err_msg=name)
