"""Compare sizes of generators and models, initial weights and evaluation metrics with the original's tables."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import linen as nn

from electra_jax.config.pretraining import PretrainingRun
from electra_jax.errors import UserError
from electra_jax.interchange import layout, tf1
from electra_jax.model.electra import Electra, generator_config
from electra_jax.pretraining import electric, masked_lm, original, registry, steps
from electra_jax.pretraining.corruption import MaskingConfig
from support.parity_case import Case, discover, keys_of, masked_of, published_encoder


def published(size: str, *, width: float = 0.25, depth: float = 1.0) -> Electra:
    discriminator = published_encoder(size)
    generator = generator_config(
        discriminator, width_fraction=width, depth_fraction=depth, embedding_size=discriminator.embedding_size
    )
    return Electra(generator, discriminator, "es")


@pytest.mark.parametrize("path", discover("tf_pretrain/config_tables*.json"))
def test_sizes_of_generators(path: Path) -> None:
    for row in json.loads(path.read_text())["generator_config"]:
        fractions = {"width": row["generator_hidden_size"], "depth": row["generator_layers"]}
        if not row["valid"]:
            with pytest.raises(UserError, match="generator_width_fraction"):
                published(row["size"], **fractions)
            continue
        ours = published(row["size"], **fractions).generator_config
        sizes = (ours.hidden_size, ours.num_hidden_layers, ours.num_attention_heads, ours.intermediate_size)
        assert sizes == (row["hidden"], row["layers"], row["heads"], row["intermediate"]), row
        assert ours.embedding_size == (row["embedding_size"] or published_encoder(row["size"]).hidden_size)


@pytest.mark.parametrize("path", discover("tf_pretrain/config_tables*.json"))
def test_parameter_counts_and_room_for_masks(path: Path) -> None:
    tables = json.loads(path.read_text())
    for name, counts in tables["param_counts"].items():
        size, _, options = name.partition("{")
        changes = json.loads("{" + options.replace("'", '"'))
        model = published(
            size, width=changes.get("generator_hidden_size", 0.25), depth=changes.get("generator_layers", 1.0)
        )
        shapes = nn.unbox(jax.eval_shape(lambda key, model=model: steps.init_params(key, model, 8), jax.random.key(0)))
        ours = {
            "embeddings": shapes["embeddings"],
            "generator": shapes["generator"]["encoder"],
            "generator_predictions": shapes["generator"]["head"],
            "electra": shapes["discriminator"]["encoder"],
            "discriminator_predictions": shapes["discriminator"]["head"],
            "total": shapes,
        }
        for part, tree in ours.items():
            assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)) == counts[part], (name, part)
    for name, count in tables["max_predictions_per_seq"].items():
        length, mask_prob = name.removeprefix("L").split("_p")
        config = MaskingConfig(float(mask_prob), 0.85, original.RULES.positions, 101, 102, 103)
        assert config.max_predictions(int(length)) == count, name


@pytest.mark.parametrize("path", discover("tf_pretrain/init_stats*.json"))
def test_initial_weights_have_the_originals_distribution(path: Path) -> None:
    recorded = json.loads(path.read_text())["pretrain_small"]
    model = published("small")
    params = nn.unbox(jax.jit(lambda key: steps.init_params(key, model, 8))(jax.random.key(3)))
    shapes = {name: tuple(entry["shape"]) for name, entry in recorded.items() if "/adam_" not in name}
    locations = tf1.locations_of(params, tf1.parameter_names("electra"))
    assert {name: location.stored_shape for name, location in locations.items()} == shapes
    for name, ours in layout.disassemble(params, locations).items():
        theirs = recorded[name]
        if theirs["std"] == 0:
            assert ours.min() == ours.max() == theirs["mean"], name
            continue
        noise = 5 * theirs["std"] / math.sqrt(ours.size)
        assert ours.mean() == pytest.approx(0, abs=noise + abs(theirs["mean"])), name
        assert ours.std() == pytest.approx(theirs["std"], abs=1.5 * noise), name
        # A normal cut at two standard deviations of 0.02, or Glorot's uniform: both end.
        bound = 0.04 if theirs["max"] <= 0.04 else math.sqrt(6 / sum(shapes[name]))
        assert max(np.abs(ours).max(), theirs["max"], -theirs["min"]) <= bound * 1.00001, name


SAMPLING = {
    "gen_weight": 1.0,
    "disc_weight": 50.0,
    "temperature": 1.0,
    "disallow_correct": False,
    "sampler": "inverse_cdf",
}
# The words of a combination's name, as our settings.
OBJECTIVES = {"electric": electric.Electric(**SAMPLING), "mlm_only": masked_lm.MaskedLanguageModel(1.0)}
GENERATORS = {"uniform_generator": "uniform", "untied_generator=False": "tied", "two_tower": "two_tower"}


@pytest.mark.parametrize("path", discover("tf_pretrain/crashes*.json"))
def test_what_the_original_cannot_build_is_refused_by_name(path: Path) -> None:
    """One combination has no variable to train."""
    for name in json.loads(path.read_text()):
        if name.endswith(" kwarg"):
            fields = {field.name for field in dataclasses.fields(PretrainingRun)}
            assert name.removesuffix(" kwarg") not in fields
            continue
        words = name.split("+")
        (objective,) = (OBJECTIVES[word] for word in words if word in OBJECTIVES)
        (kind,) = (GENERATORS[word] for word in words if word in GENERATORS)
        with pytest.raises(UserError, match=f"{type(objective).__name__} cannot have generator_kind '{kind}'"):
            registry.check(
                objective,
                generator_kind=kind,
                embedding_sharing="es",
                generator=published("small").generator_config,
                discriminator=published_encoder("small"),
            )


@pytest.mark.parametrize("path", discover("tf_pretrain/eval_metrics*.json"))
def test_evaluation_metrics(path: Path) -> None:
    for name, recorded in json.loads(path.read_text()).items():
        files = path.with_name(f"{name}.json"), path.with_name(f"{name}.npz")
        if not all(file.exists() for file in files) or not recorded["same_draws_as_npz"]:
            continue
        case = Case.read(files[0])
        with np.load(files[1]) as file:
            arrays = {key: file[key] for key in file.files if key.startswith(("in/", "out/rand"))}
        values = evaluate(case, arrays)
        assert values == pytest.approx(recorded["metrics"], abs=2e-5, rel=0), name


def evaluate(case: Case, arrays: dict[str, np.ndarray]) -> dict[str, float]:
    model, masked = case.model, masked_of(arrays, case.masking)

    @jax.jit
    def sums(params: Any) -> dict[str, jax.Array]:
        _, outputs = case.objective.losses(
            model, params, masked, keys_of(arrays), masking=case.masking, deterministic=True
        )
        return original.metric_sums(masked, outputs)

    return original.finish_metrics(jax.device_get(sums(case.params(model))))
