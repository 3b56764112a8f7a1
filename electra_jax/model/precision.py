"""Set the precision of evaluation and prediction, which does not depend on how a model was trained.

Fine-tuning's evaluation, the evaluation of a task, `electra predict` and T5X's inference all compute in float32: a run
in bfloat16, or on an accelerator, reports the scores that its model directory gives everywhere else. Pre-training and
its held-out losses compute in the encoder's dtype. Float32 is float32 in both: see `matmul.precision`.
"""

import dataclasses
from contextlib import AbstractContextManager

import jax

from electra_jax.model.config import EncoderConfig


def evaluation_config(config: EncoderConfig) -> EncoderConfig:
    """Return an encoder's configuration for evaluation: float32 and exact attention, whatever it was trained with."""
    return dataclasses.replace(config, dtype="float32", attention="exact", remat_policy="none")


def evaluation_precision() -> AbstractContextManager[None]:
    """Return a context in which matrix products that are traced multiply float32 operands in float32.

    It extends the policy of `matmul.precision` to products that are not computed by `matmul`.
    """
    return jax.default_matmul_precision("highest")
