"""Import checkpoints with the recorded names and shapes of the original: every size, and Electric."""

import dataclasses
import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest

import electra_jax
from electra_jax.checkpoints.model_record import Description, abstract_params
from electra_jax.cli import main
from electra_jax.interchange import tf1
from electra_jax.model.config import EncoderConfig
from electra_jax.model.types import Tokens
from electra_jax.pretraining import electric
from support.parity_case import CLS, MASK, SEP, Case, discover, recipe
from support.tiny_model import small_encoder

LOGITS = 2e-5
TABLE = "electra/embeddings/word_embeddings"
QUERY = "electra/encoder/layer_0/attention/self/query/kernel"
INNER = "electra/encoder/layer_0/intermediate/dense/kernel"


def encoder_of(shapes: dict[str, list[int]]) -> EncoderConfig:
    """Return the sizes that recorded shapes tell; heads of published models are 64 wide."""
    hidden = shapes[QUERY][1]
    return dataclasses.replace(
        small_encoder(),
        vocab_size=shapes[TABLE][0],
        embedding_size=shapes[TABLE][1],
        hidden_size=hidden,
        num_attention_heads=hidden // 64,
        intermediate_size=shapes[INNER][1],
        num_hidden_layers=len({name.split("/")[2] for name in shapes if name.startswith("electra/encoder/layer_")}),
        max_position_embeddings=shapes["electra/embeddings/position_embeddings"][0],
    )


@pytest.mark.parametrize("path", discover("tf_optim/layerwise_multipliers.json"))
def test_an_encoder_of_every_published_size_has_the_originals_variables(path: Path) -> None:
    """Compare names and shapes alone."""
    for size, recorded in json.loads(path.read_text()).items():
        shapes = {name: value["shape"] for name, value in recorded["variables"].items() if name.startswith("electra/")}
        description = Description("encoder", encoder_of(shapes), None, False, None, (), {})
        names = tf1.variable_layout(description, abstract_params(description), scope="electra", task=None)
        assert {name: list(location.stored_shape) for name, location in names.items()} == shapes, size


def electric_cases() -> list:
    """Return the recorded cases of Electric."""
    cases = discover("tf_pretrain/*.json", beside=".npz")
    return [
        case
        for case in cases
        if case.values[0] is None or json.loads(case.values[0].read_text()).get("options", {}).get("electric_objective")
    ]


@dataclasses.dataclass(frozen=True)
class Special:
    """Hold the special ids of the recorded texts."""

    cls_id: int = CLS
    sep_id: int = SEP
    mask_id: int = MASK


@pytest.mark.parametrize("path", electric_cases())
def test_electric_gives_the_energies_behind_the_recorded_logits(path: Path, tmp_path: Path) -> None:
    """The recorded logit of noise is energy + log q + log odds of noise."""
    from electra_jax.tasks.host_tensorflow import tf

    case = Case.read(path)
    variables = {name: recipe(name, shape) for name, shape in case.info["variables"]}
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "model.ckpt-3"),
        tensor_names=list(variables),
        shape_and_slices=[""] * len(variables),
        tensors=list(variables.values()),
    )
    heads = {"hidden_size": case.info["disc_config"]["hidden_size"]}
    heads["num_attention_heads"] = case.info["disc_config"]["num_attention_heads"]
    (tmp_path / "bert_config.json").write_text(json.dumps(heads))
    assert main(["import", str(tmp_path / "model.ckpt-3"), str(tmp_path / "model")]) == 0
    model = electra_jax.load(tmp_path / "model")
    assert model.description.gives_energies
    with np.load(path.with_suffix(".npz")) as file:
        arrays = {name: file[name] for name in file.files}
    ids, mask, types = (arrays[name] for name in ("out/fake_input_ids", "in/input_mask", "in/segment_ids"))
    log_q = np.take_along_axis(np.asarray(jax.nn.log_softmax(arrays["out/cloze_logits"])), ids[..., None], -1)[..., 0]
    prob = case.info["mask_prob"]
    recorded = arrays["out/disc_logits"] - log_q - math.log(prob / (1 - prob))
    ordinary = (mask == 1) & ~np.isin(ids, (CLS, SEP, MASK))
    energies = model.logits(ids, mask, types)
    total, scores = electric.pseudo_log_likelihoods(energies, Tokens(ids, types, mask), Special())
    np.testing.assert_allclose(scores, np.where(ordinary, -recorded, 0), rtol=0, atol=LOGITS)
    np.testing.assert_allclose(total, np.where(ordinary, -recorded, 0).sum(-1), rtol=0, atol=64 * LOGITS)
