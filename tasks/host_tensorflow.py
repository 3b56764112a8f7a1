"""Import TensorFlow to read data, and keep it off the accelerators, which belong to JAX.

Every module that uses TensorFlow imports it from here: `from electra_jax.tasks.host_tensorflow import tf`.
"""

import re

import tensorflow as tf

for _kind in ("GPU", "TPU"):
    tf.config.set_visible_devices([], _kind)

__all__ = ["reason_of", "tf"]


def reason_of(error: tf.errors.OpError) -> str:
    """Return an error's message without the names of TensorFlow's own functions around it."""
    return re.sub(r"\{\{.*?\}\}|\[Op:.*", "", error.message.split(";")[0], flags=re.DOTALL).strip()
