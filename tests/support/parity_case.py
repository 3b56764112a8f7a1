"""Turn recorded pre-training cases of the original into our objects: weights, settings and draws."""

import dataclasses
import json
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
from electra_jax.model.config import EncoderConfig
from electra_jax.model.types import Masked, PyTree, Tokens
from electra_jax.pretraining import corruption, electric, masked_lm, registry, replaced_token, steps
from electra_jax.pretraining.corruption import MaskingConfig
from electra_jax.pretraining.objective import Keys, Objective
from electra_jax.pretraining.original import RULES
from electra_jax.training.optimizer import OptimizerConfig
from support.shared import ORACLE, skipped
from support.tiny_model import encoder_config

CLS, SEP, MASK = 101, 102, 103
# Hidden size, layers, heads, embedding size.
SIZES = {"small": (256, 12, 4, 128), "base": (768, 12, 12, 768), "large": (1024, 24, 16, 1024)}

# A two-tower generator, which has no place in a model directory, so that the importer has no names for it.
TWO_TOWER_NAMES = {
    "generator/head/dense": "cloze_predictions/dense",
    "generator/head/layer_norm": "cloze_predictions/LayerNorm",
    "generator/head/output_bias": "cloze_predictions/output_bias",
    "generator/ltr/encoder": "generator_ltr",
    "generator/rtl/encoder": "generator_rtl",
}


def discover(pattern: str, *, beside: str = "", holding: str = "") -> list:
    """Return every recorded file as a parameter of a test; if there is none, one that is skipped with the reason.

    Args:
        pattern: of files in the oracle's folder.
        beside: suffix of a file that must stand beside it, which tells a case from a table.
        holding: name of an array that it must hold.
    """
    paths = [path for path in sorted(ORACLE.glob(pattern)) if not beside or path.with_suffix(beside).exists()]
    paths = [path for path in paths if not holding or holding in np.load(path).files]
    if not paths:
        return [skipped(ORACLE / pattern)]
    return [pytest.param(path, id=path.stem) for path in paths]


NO_DECAY = "layer_norm|bias"


def optimizer_of(options: dict[str, Any]) -> OptimizerConfig:
    """Return our settings for the original's arguments, among which a share of warm-up beats a number."""
    steps = options["num_train_steps"]
    return OptimizerConfig(
        rule="bert_adam",
        learning_rate=options["learning_rate"],
        generator_learning_rate=None,
        num_warmup_steps=max(options.get("warmup_proportion", 0) * steps, options.get("warmup_steps", 0)),
        num_train_steps=steps,
        lr_decay_power=options.get("lr_decay_power", 1.0),
        weight_decay_rate=options.get("weight_decay_rate", 0.01),
        no_decay=NO_DECAY,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-6,
        muon_momentum=0.95,
        muon_update_rms=0.2,
        clip_norm=1.0,
        generator_clip_norm=None,
        layerwise_lr_decay=options["layerwise_lr_decay_power"]
        if options.get("layerwise_lr_decay_power", -1) > 0
        else 1.0,
        top_layer_exponent=2,
        lr_decay_share=1.0,
    )


def published_encoder(size: str) -> EncoderConfig:
    """Return the published discriminator of a size."""
    hidden, layers, heads, embedding = SIZES[size]
    return encoder_config(
        hidden_size=hidden,
        embedding_size=embedding,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
    )


def recipe(name: str, shape: list[int]) -> np.ndarray:
    """Return the weights of a variable, which depend on its name alone (see the oracle's README)."""
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
    """Describe one variant of the original."""

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
        return encoder_config(
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
            initializer_range=config["initializer_range"],
        )

    @property
    def masking(self) -> MaskingConfig:
        return MaskingConfig(
            mask_prob=self.info["mask_prob"],
            mask_token_prob=0.85,
            positions=RULES.positions,
            cls_id=CLS,
            sep_id=SEP,
            mask_id=MASK,
        )

    def option(self, name: str, default: bool) -> bool:
        return self.info["options"].get(name, default)

    @property
    def objective(self) -> Objective:
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
        """Return the location of each recorded variable in our tree, by the importer's mapping."""
        two_tower = TWO_TOWER_NAMES if self.generator == "two_tower" else {}
        return tf1.locations_of(self.template(model), tf1.parameter_names("electra") | two_tower)

    def params(self, model: nn.Module) -> PyTree:
        variables = {name: recipe(name, shape) for name, shape in self.info["variables"]}
        locations = self.layout(model)
        assert layout.check(variables, locations, "the case") == []
        return jax.tree.map(jnp.asarray, layout.assemble(variables, locations, self.template(model)))


def tokens_of(arrays: dict[str, np.ndarray]) -> Tokens:
    return Tokens(*(jnp.asarray(arrays[f"in/{name}"]) for name in ("input_ids", "segment_ids", "input_mask")))


def masked_of(arrays: dict[str, np.ndarray], masking: MaskingConfig) -> Masked:
    """Return our masking of the recorded inputs with the recorded draws."""
    tokens = tokens_of(arrays)
    slots = arrays["out/rand_mask_uniform"].shape[1]
    used_BK = jnp.arange(slots)[None] < corruption.num_to_mask(tokens.attention_mask, masking)[:, None]
    shown_BK = jnp.asarray(arrays["out/rand_mask_uniform"]) < masking.mask_token_prob
    positions_BK = jnp.asarray(arrays["out/rand_categorical_positions_raw"])
    return corruption.mask_at(tokens, positions_BK, used_BK, shown_BK, masking)


def noise_of(arrays: dict[str, np.ndarray]) -> jax.Array:
    """Return the original's Gumbel noise, from its uniform draws."""
    uniform = jnp.asarray(arrays["out/rand_gumbel_uniform"])
    return -jnp.log(-jnp.log(uniform + 1e-9) + 1e-9)


def keys_of(arrays: dict[str, np.ndarray]) -> Keys:
    return Keys(noise_of(arrays), jax.random.key(0), jax.random.key(0))
