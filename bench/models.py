"""Build the published recipes from the Gin files that `electra pretrain` reads."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from electra_jax.config import gin_files
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.model.electra import Electra
from electra_jax.pretraining import steps
from electra_jax.pretraining.corruption import MaskingConfig
from electra_jax.pretraining.replaced_token import ReplacedTokenDetection
from electra_jax.training.optimizer import OptimizerConfig, make_optimizer
from electra_jax.training.state import Batch, Sums, TrainState

SIZES = ("tiny", "small", "base", "large", "modern_tiny", "modern_small", "modern_base")

# The ids of BERT's released vocabularies.
CLS_ID, SEP_ID, MASK_ID = 101, 102, 103

# Short, so that the loss falls within a few steps.
WARMUP_STEPS = 100


class Recipe(NamedTuple):
    """Hold the parts of a pre-training step."""

    model: Electra
    objective: ReplacedTokenDetection
    masking: MaskingConfig
    optimizer: OptimizerConfig
    generator_width_fraction: float

    @property
    def vocab_size(self) -> int:
        """Return the number of tokens in the vocabulary."""
        return self.model.discriminator_config.vocab_size

    def init(self, sequence_length: int) -> Callable[[jax.Array], TrainState]:
        """Return a function that makes a new run's boxed state from a key."""
        return functools.partial(
            steps.init_state,
            model=self.model,
            optimizer=make_optimizer(self.optimizer),
            sequence_length=sequence_length,
        )

    def update(self) -> Callable[[TrainState, Batch], tuple[TrainState, Sums]]:
        """Return the function that updates a state by a batch."""
        return functools.partial(
            steps.pretrain_step,
            model=self.model,
            objective=self.objective,
            masking=self.masking,
            optimizer=make_optimizer(self.optimizer),
            accumulation_steps=1,
        )


def recipe(
    name: str, *, dtype: str, fused: bool = False, prng: str = "threefry2x32", bindings: Sequence[str] = ()
) -> Recipe:
    """Return the published recipe of a size.

    Args:
        name: one of `SIZES`.
        dtype: the dtype of matrix products.
        fused: whether attention uses the backend's kernel, without dropout of its probabilities.
        prng: the random number generator of dropout.
        bindings: further lines of Gin.
    """
    macros = {
        "MODEL_DIR": "bench",
        "VOCAB_FILE": "",
        "WARMUP_STEPS": WARMUP_STEPS,
        "DTYPE": dtype,
        "PRNG": prng,
        **({"ATTENTION": "fused", "ATTENTION_DROPOUT": 0.0} if fused else {}),
    }
    files = [f"gin/models/{name}.gin", "gin/runs/pretrain.gin"]
    with gin_files.isolated():
        run: PretrainingRun = gin_files.build(
            PretrainingRun,
            files,
            [*(f"{macro} = {value!r}" for macro, value in macros.items()), *bindings],
            search_paths=[],
        )
    return Recipe(
        run.model,
        run.objective,
        run.masking_config(cls_id=CLS_ID, sep_id=SEP_ID, mask_id=MASK_ID),
        run.optimizer,
        run.generator_width_fraction,
    )
