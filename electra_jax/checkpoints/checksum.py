"""Compute a checksum of parameters, which tells whether weights are the same."""

import hashlib

import numpy as np
from flax.traverse_util import flatten_dict

from electra_jax.model.types import PyTree


def params_sha256(params: PyTree) -> str:
    """Return a checksum of host parameters: of their names, types, shapes and values."""
    checksum = hashlib.sha256()
    for name, leaf in sorted(flatten_dict(params, sep="/").items()):
        checksum.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        checksum.update(np.ascontiguousarray(leaf).tobytes())
    return checksum.hexdigest()
