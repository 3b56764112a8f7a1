"""`electra import SRC [SRC] DEST`: makes a model directory from another implementation's checkpoint."""

import argparse
import sys
from pathlib import Path

from electra_jax.checkpoints import model_dir
from electra_jax.errors import UserError
from electra_jax.files import local
from electra_jax.interchange import hf, imported, tf1
from electra_jax.run_directory import CHECKPOINTS


def run(options: argparse.Namespace) -> None:
    """Read and check the sources, write DEST, and print what was found; if that fails, DEST does not exist.

    Raises:
        UserError: if a source cannot be read, or DEST exists.
    """
    sources = [local(source, "SRC") for source in options.sources]
    dest = local(options.dest, "DEST")
    model_dir.check_new(dest)
    model = imported.without_unused_rows(read(sources))
    notes = [*model.notes, *imported.write(model, dest)]
    count = imported.parameter_count(model.params)
    moments = f", with Adam's moments at step {model.step}" if model.moments is not None else ""
    print(f"{dest}: {model.description.kind.replace('_', ' ')}, {count:,} parameters{moments}")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def read(sources: list[Path]) -> imported.Imported:
    """Read sources of any known kind.

    Raises:
        UserError: if their kind is unknown; the message lists what was looked for.
    """
    if len(sources) > 2:
        raise UserError(f"{len(sources)} sources: give one, or a discriminator and a generator")
    if all(hf.is_hf_directory(source) for source in sources):
        return hf.read(sources)
    if len(sources) == 1:
        if tf1.checkpoint_prefix(sources[0]) is not None:
            return tf1.read(sources[0])
        if (sources[0] / CHECKPOINTS).is_dir():
            raise UserError(
                f"{sources[0]} is a model directory already: copy it, or give it to the command that needs it"
            )
    wrong = next(source for source in sources if not hf.is_hf_directory(source))
    kinds = (
        "a transformers directory (looked for config.json)",
        "a TensorFlow checkpoint (looked for model.ckpt-*.index)",
    )
    state, between = ("is neither", " nor ") if wrong.exists() else ("does not exist: it should be", " or ")
    raise UserError(f"{wrong} {state} {between.join(kinds)}")
