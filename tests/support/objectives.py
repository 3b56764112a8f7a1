"""Every objective with a model of one layer that it trains."""

import dataclasses
import functools

import jax
from flax import linen as nn

from electra_jax.model.config import EncoderConfig
from electra_jax.model.electra import generator_config
from electra_jax.model.types import PyTree
from electra_jax.pretraining import registry, steps
from electra_jax.pretraining.correction import CorrectedDetection
from electra_jax.pretraining.electric import Electric, TwoTowerDetection
from electra_jax.pretraining.language_model import LanguageModel
from electra_jax.pretraining.masked_lm import AllTokensMlm, MaskedLanguageModel, ReplaceMlm
from electra_jax.pretraining.objective import Objective
from support.tiny_model import OBJECTIVE, small_encoder

SAMPLING = {"temperature": 1.0, "disallow_correct": False, "sampler": "inverse_cdf"}
TWO = {"gen_weight": 1.0, "disc_weight": 50.0, **SAMPLING}
CORRECTION = {**TWO, "discriminate_at": "all", "correction_weight": 20.0, "num_candidates": 4}
WORDS = {"gen_weight": 1.0, "prediction_weight": 2.0, **SAMPLING}

# These programs run once and are small: what they cost is their compilation.
COMPILE_FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


# Not unrolled: what is tested with it is how towers are joined, and compiling is what takes the time.
ONE_LAYER = dataclasses.replace(small_encoder(), num_hidden_layers=1, scan_unroll=1)


@dataclasses.dataclass(frozen=True)
class Variant:
    """An objective with the model that it trains."""

    objective: Objective
    kind: str = "small"
    sharing: str = "es"
    own_size: bool = False
    encoder: EncoderConfig = ONE_LAYER

    @functools.cached_property
    def model(self) -> nn.Module:
        encoder = self.encoder
        size = 0 if self.own_size else encoder.embedding_size
        generator = generator_config(encoder, width_fraction=0.75, depth_fraction=1.0, embedding_size=size)
        arguments = {
            "generator_kind": self.kind,
            "embedding_sharing": self.sharing,
            "generator": generator if self.kind in ("small", "two_tower") else None,
            "discriminator": encoder,
        }
        registry.check(self.objective, **arguments)
        return registry.make_model(self.objective, **arguments)

    @functools.cache  # noqa: B019 (a handful of module-level variants)
    def params(self) -> PyTree:
        params = nn.unbox(
            jax.jit(lambda key: steps.init_params(key, self.model, 32), compiler_options=COMPILE_FAST)(
                jax.random.key(1)
            )
        )
        # Large enough that no gradient vanishes by rounding.
        return jax.tree.map(lambda leaf: leaf * 4 if leaf.ndim > 1 else leaf, params)


VARIANTS = {
    "electra": Variant(OBJECTIVE),
    "gdes": Variant(OBJECTIVE, sharing="gdes"),
    "nes": Variant(OBJECTIVE, sharing="nes"),
    "untied_generator_embeddings": Variant(OBJECTIVE, sharing="nes", own_size=True),
    "electra_15": Variant(dataclasses.replace(OBJECTIVE, discriminate_at="masked")),
    "disallow_correct": Variant(dataclasses.replace(OBJECTIVE, disallow_correct=True)),
    "temperature": Variant(dataclasses.replace(OBJECTIVE, temperature=2.0)),
    "tied_generator": Variant(OBJECTIVE, kind="tied"),
    "uniform_generator": Variant(OBJECTIVE, kind="uniform"),
    "correction": Variant(CorrectedDetection(**CORRECTION)),
    "correction_gdes": Variant(CorrectedDetection(**CORRECTION), sharing="gdes"),
    "mlm": Variant(MaskedLanguageModel(weight=1.0), kind="none"),
    "lm": Variant(LanguageModel(weight=1.0), kind="none"),
    "replace_mlm": Variant(ReplaceMlm(**WORDS)),
    "all_tokens_mlm": Variant(AllTokensMlm(**WORDS)),
    "all_tokens_mlm_gdes": Variant(AllTokensMlm(**WORDS), sharing="gdes"),
    "two_tower_electra": Variant(TwoTowerDetection(**TWO), kind="two_tower"),
    "electric": Variant(Electric(**TWO), kind="two_tower"),
    "electric_untied": Variant(Electric(**TWO), kind="two_tower", sharing="nes", own_size=True),
    "electric_gdes": Variant(Electric(**TWO), kind="two_tower", sharing="gdes"),
}
