"""Evaluation of a fine-tuning run over a mesh gives what inference on one device gives."""

import dataclasses
import functools
import types
from typing import Any

import jax
import numpy as np
import pytest

from electra_jax.checkpoints.model_dir import Loaded
from electra_jax.checkpoints.model_record import MODEL_KINDS, Description, abstract_params
from electra_jax.finetuning.seed_run import SeedContext, Split
from electra_jax.finetuning.selection import Parts
from electra_jax.inference.network import Network
from electra_jax.inference.prediction import row_runner
from electra_jax.model.finetuned import FinetunedModel
from electra_jax.model.heads import HeadConfig
from electra_jax.model.types import PyTree
from electra_jax.tasks.long_texts import CutCount
from electra_jax.training import sharding
from electra_jax.training.sharding import MeshConfig
from support.tiny_model import RULES, VOCAB_SIZE, head_config, small_encoder

HEADS = {
    "classification": "sequence_classification",
    "tagging": "token_classification",
    "question_answering": "joint_question_answering",
}


def head(kind: str) -> HeadConfig:
    if kind == "question_answering":
        return head_config(HEADS[kind], mask_questions=True, answerable="start", beam_size=3)
    return head_config(HEADS[kind], num_labels=3)


def rows(count: int) -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(0)
    found = []
    for length in draw.integers(4, 20, count):
        types_L = (np.arange(length) >= length // 2).astype(np.int32)
        found.append({"input_ids": draw.integers(5, VOCAB_SIZE, length).astype(np.int32), "token_type_ids": types_L})
    return found


@functools.cache
def random_params(kind: str) -> PyTree:
    description = Description(MODEL_KINDS[kind], small_encoder(), None, False, head(kind), (), {})
    draw = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: draw.normal(0.0, 0.2, leaf.shape).astype(np.float32), abstract_params(description))


@pytest.mark.parametrize("kind", HEADS)
def test_eight_devices_equal_inference_on_one(kind: str) -> None:
    trained = dataclasses.replace(small_encoder(), dtype="bfloat16", attention="fused", scan_unroll=1)
    config = MeshConfig(2, 2, 2, rules=RULES, deterministic=False)
    run: Any = types.SimpleNamespace(mesh=config, evaluation_batch_size=8, buckets=(8, 12))
    task: Any = types.SimpleNamespace(kind=kind, length=20)
    nothing: Any = None
    mesh = sharding.make_mesh(config, 8)
    split = Split([], [], {}, CutCount(8))
    context = SeedContext(
        run, task, nothing, split, Parts("dev", split, {"dev": split}), mesh, FinetunedModel(trained, head(kind))
    )
    params = random_params(kind)
    everywhere = jax.device_put(params, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    description = Description(MODEL_KINDS[kind], trained, None, False, head(kind), (), {})
    network = Network(Loaded(description, params, None, 0))
    for one, other in zip(context.runner(everywhere)(rows(21)), row_runner(network, 32, 21)(rows(21)), strict=True):
        assert one.keys() == other.keys()
        for name, values in one.items():
            np.testing.assert_allclose(values, other[name], rtol=0, atol=1e-5, err_msg=name)
