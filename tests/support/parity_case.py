"""Recorded pre-training cases of the original: their weights, settings and draws, as our objects."""

import dataclasses
import json
import os
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from electra_jax.interchange import layout, tf1
from electra_jax.interchange.layout import Layout
from electra_jax.model.encoder import EncoderConfig
from electra_jax.model.types import Masked, PyTree, Tokens
from electra_jax.pretraining import corruption, electric, masked_lm, registry, replaced_token, steps
from electra_jax.pretraining.corruption import MaskingConfig

ORACLE = Path(os.environ.get("ELECTRA_ORACLE", Path(__file__).parents[3] / "shared" / "oracle"))
CLS, SEP, MASK = 101, 102, 103

# A two-tower generator, which has no place in a model directory, so that the importer has no names for it.
TWO_TOWER_NAMES = {
    "generator/head/dense": "cloze_predictions/dense",
    "generator/head/layer_norm": "cloze_predictions/LayerNorm",
    "generator/head/output_bias": "cloze_predictions/output_bias",
    "generator/ltr/encoder": "generator_ltr",
    "generator/rtl/encoder": "generator_rtl",
}


def discover(pattern: str, *, beside: str = "", holding: str = "") -> list:
    """Every recorded file, as parameters of a test; one that is skipped with its reason where there is none.

    Args:
        pattern: of files in the oracle's folder.
        beside: suffix of a file that must stand beside it, which tells a case from a table.
        holding: name of an array that it must hold.
    """
    paths = [path for path in sorted(ORACLE.glob(pattern)) if not beside or path.with_suffix(beside).exists()]
    paths = [path for path in paths if not holding or holding in np.load(path).files]
    if not paths:
        reason = f"no recorded numbers at {ORACLE / pattern} (set ELECTRA_ORACLE)"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason))]
    return [pytest.param(path, id=path.stem) for path in paths]


def recipe(name: str, shape: list[int]) -> np.ndarray:
    """The weights of a variable, from its name alone (see the oracle's README)."""
    seed = zlib.crc32(name.encode()) & 0x7FFFFFFF
    x = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
    leaf = name.rpartition("/")[2]
    if leaf == "gamma":
        return np.float32(1) + np.float32(0.2) * x
    if leaf == "beta" or leaf.endswith("bias"):
        x = np.float32(0.1) * x
        if name in ("generator_predictions/output_bias", "cloze_predictions/output_bias"):
            x[150:156] += np.float32(10)
        return x
    return np.float32(0.3 if "_embeddings" in leaf else 0.08) * x


@dataclasses.dataclass(frozen=True)
class Case:
    """One variant of the original."""

    info: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "Case":
        return cls(json.loads(path.read_text()))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(shape) for name, shape in self.info["variables"]}

    def encoder(self, name: str, embedding_size: int | None) -> EncoderConfig:
        config = self.info[name]
        assert config["hidden_act"] == "gelu"
        return EncoderConfig(
            vocab_size=config["vocab_size"],
            hidden_size=config["hidden_size"],
            embedding_size=embedding_size or config["hidden_size"],
            num_hidden_layers=config["num_hidden_layers"],
            num_attention_heads=config["num_attention_heads"],
            intermediate_size=config["intermediate_size"],
            max_position_embeddings=config["max_position_embeddings"],
            type_vocab_size=config["type_vocab_size"],
            hidden_dropout_prob=config["hidden_dropout_prob"],
            attention_probs_dropout_prob=config["attention_probs_dropout_prob"],
            dropout_bits=16,
            dropout_prng="threefry2x32",
            initializer_range=config["initializer_range"],
            layer_norm_eps=1e-12,
            dtype="float32",
            attention="exact",
            scan_unroll=1,
            remat_policy="none",
        )

    @property
    def masking(self) -> MaskingConfig:
        return MaskingConfig(
            mask_prob=self.info["mask_prob"],
            mask_token_prob=0.85,
            with_replacement=True,
            average_duplicates=True,
            cls_id=CLS,
            sep_id=SEP,
            mask_id=MASK,
        )

    def option(self, name: str, default: bool) -> bool:
        return self.info["options"].get(name, default)

    @property
    def objective(self) -> replaced_token.Objective:
        electric_objective = self.option("electric_objective", False)
        if not (self.option("electra_objective", True) or electric_objective):
            return masked_lm.MaskedLanguageModel(weight=self.info["gen_weight"])
        sampling = {
            "gen_weight": self.info["gen_weight"],
            "disc_weight": self.info["disc_weight"],
            "temperature": self.info["temperature"],
            "disallow_correct": self.option("disallow_correct", False),
            "sampler": "gumbel",
        }
        if electric_objective:
            return electric.Electric(**sampling)
        if self.generator == "two_tower":
            return electric.TwoTowerDetection(**sampling)
        return replaced_token.ReplacedTokenDetection(**sampling, discriminate_at="all")

    @property
    def generator(self) -> str:
        electric_objective = self.option("electric_objective", False)
        if self.option("uniform_generator", False):
            return "uniform"
        if not (self.option("electra_objective", True) or electric_objective):
            return "none"
        if not self.option("untied_generator", True):
            return "tied"
        return "two_tower" if electric_objective or self.option("two_tower_generator", False) else "small"

    @property
    def model(self) -> nn.Module:
        untied = self.option("untied_generator_embeddings", False)
        size = self.info["embedding_size"]
        discriminator = self.encoder("disc_config", size)
        return registry.make_model(
            self.objective,
            generator_kind=self.generator,
            embedding_sharing="nes" if untied and self.generator in ("small", "two_tower") else "es",
            generator=self.encoder("generator_config", None if untied else discriminator.embedding_size),
            discriminator=discriminator,
        )

    def template(self, model: nn.Module) -> PyTree:
        return nn.unbox(jax.eval_shape(lambda key: steps.init_params(key, model, 8), jax.random.key(0)))

    def layout(self, model: nn.Module) -> Layout:
        """Where the recorded variables stand in our tree, by the importer's mapping."""
        two_tower = TWO_TOWER_NAMES if self.generator == "two_tower" else {}
        return tf1.places_of(self.template(model), tf1.parameter_names("electra") | two_tower)

    def params(self, model: nn.Module) -> PyTree:
        variables = {name: recipe(name, shape) for name, shape in self.info["variables"]}
        places = self.layout(model)
        assert layout.check(variables, places, "the case") == []
        return jax.tree.map(jnp.asarray, layout.assemble(variables, places, self.template(model)))


def tokens_of(arrays: dict[str, np.ndarray]) -> Tokens:
    return Tokens(*(jnp.asarray(arrays[f"in/{name}"]) for name in ("input_ids", "segment_ids", "input_mask")))


def masked_of(arrays: dict[str, np.ndarray], masking: MaskingConfig) -> Masked:
    """Our masking of the recorded inputs, fed the recorded draws."""
    tokens = tokens_of(arrays)
    slots = arrays["out/rand_mask_uniform"].shape[1]
    used_BK = jnp.arange(slots)[None] < corruption.num_to_mask(tokens.attention_mask, masking)[:, None]
    shown_BK = jnp.asarray(arrays["out/rand_mask_uniform"]) < masking.mask_token_prob
    positions_BK = jnp.asarray(arrays["out/rand_categorical_positions_raw"])
    return corruption.mask_at(tokens, positions_BK, used_BK, shown_BK, masking)


def noise_of(arrays: dict[str, np.ndarray]) -> jax.Array:
    """The original's Gumbel noise from its uniform draws."""
    uniform = jnp.asarray(arrays["out/rand_gumbel_uniform"])
    return -jnp.log(-jnp.log(uniform + 1e-9) + 1e-9)


def keys_of(arrays: dict[str, np.ndarray]) -> replaced_token.Keys:
    return replaced_token.Keys(noise_of(arrays), jax.random.key(0), jax.random.key(0))
