"""TensorFlow for reading data, kept off the accelerators, which belong to JAX.

Every module that uses TensorFlow takes it from here: `from electra_jax.tasks.host_tensorflow import tf`.
"""

import tensorflow as tf

for _kind in ("GPU", "TPU"):
    tf.config.set_visible_devices([], _kind)

__all__ = ["tf"]
