"""Set the precision of evaluation and prediction, which does not depend on how a model was trained.

Fine-tuning's evaluation, `electra evaluate`, `electra predict` and T5X's inference all compute in float32: a run in
bfloat16, or on an accelerator that rounds float32 operands to fewer bits, reports the scores that its model directory
gives everywhere else.
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

    GPUs otherwise round the operands to TF32, and TPUs to bfloat16.
    """
    return jax.default_matmul_precision("highest")
