"""`electra export SRC DEST --format transformers|tf1`: writes a model for other code to load."""

import argparse
import sys
from pathlib import Path

from electra_jax import loading
from electra_jax.interchange import hf


def run(options: argparse.Namespace) -> None:
    """Loads, writes, and says what could not be written; nothing is at DEST if it fails.

    Raises:
        UserError: SRC is no model directory, DEST exists, or the format has no place for the model's head.
    """
    source, dest = Path(options.source), Path(options.dest)
    loading.check_new(dest)
    model = loading.load(source)
    with loading.new_directory(dest) as part:
        if options.format == "transformers":
            notes = hf.write(model, part)
        else:
            from electra_jax.interchange import tf1

            notes = tf1.write(model, source, part)
    files = sorted(str(path.relative_to(dest)) for path in dest.rglob("*") if path.is_file())
    print(f"{dest}: {', '.join(files)}")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
