"""What `bench.pretrain_small` wrote on a bare machine: weights, Adam's moments and vocabulary in one file."""

import re
from pathlib import Path

import numpy as np

from electra_jax.checkpoints import model_dir
from electra_jax.checkpoints.model_record import Description
from electra_jax.errors import UserError
from electra_jax.files import path_of
from electra_jax.interchange import carried
from electra_jax.interchange.imported import Imported, Moments, check_vocabulary
from electra_jax.model.encoder import EncoderConfig
from electra_jax.model.types import PyTree
from electra_jax.tasks.vocabulary import Vocabulary

# In the order in which they are looked for in a directory: the first also has the moments.
FILES = ("checkpoint.npz", "weights.npz")


def file_of(source: Path) -> Path | None:
    """The file itself, or the one in a directory; None where there is none."""
    if source.suffix == ".npz":
        return source
    return next((source / name for name in FILES if (source / name).is_file()), None)


def read(path: Path) -> Imported:
    """Reads one file.

    Raises:
        UserError: it is damaged, or its parts do not fit together.
    """
    arrays, facts = carried.read(path)
    try:
        discriminator, generator = (EncoderConfig(**facts[tower]) for tower in ("discriminator", "generator"))
        vocabulary = Vocabulary(**facts["vocabulary"])
        step, settings = facts["step"], facts["settings"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} does not say what it holds ({error}): this version reads other files") from error
    description = Description(
        kind="pretraining",
        discriminator=discriminator,
        generator=generator,
        generator_embeddings=False,
        head=None,
        labels=(),
        facts={"imported from": path.name, "format": "bench.pretrain_small", "step": step, **settings},
    )
    params = carried.below(arrays, "params")
    model_dir.check_params(params, description, path_of(path))
    check_vocabulary(vocabulary, discriminator.vocab_size, path)
    moments = moments_of(arrays)
    notes = [] if moments else ["without Adam's moments, which only checkpoint.npz has; fine-tuning needs none"]
    return Imported(description, params, moments, step if moments else 0, vocabulary, notes)


def moments_of(arrays: dict[str, np.ndarray]) -> Moments | None:
    """Adam's moments, wherever it stands in the optimizer's chain; None where there are none."""
    trees: dict[str, PyTree] = {}
    for name in ("mu", "nu"):
        root = next((found[0] for path in arrays if (found := re.match(rf"opt_state/\d+/{name}(?=/)", path))), None)
        if root is None:
            return None
        trees[name] = carried.below(arrays, root)
    return Moments(**trees)
