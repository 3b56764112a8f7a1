"""`electra export SRC DEST --format ...`: writes a model for other libraries."""

import argparse
import dataclasses
import sys
from pathlib import Path

from etils import epath

from electra_jax.checkpoints import model_dir, orbax_store, t5x_layout
from electra_jax.checkpoints.model_dir import Loaded
from electra_jax.checkpoints.model_record import SOURCE, write_model_record
from electra_jax.checkpoints.sentence_encoder import sentence_encoder
from electra_jax.errors import UserError
from electra_jax.files import local, path_of
from electra_jax.interchange import hf, hub
from electra_jax.tasks.tokenizer_file import write_tokenizer


def run(options: argparse.Namespace) -> None:
    """Load a model, write it, and print what could not be written; if that fails, DEST does not exist.

    Raises:
        UserError: if SRC is not a model directory, DEST exists, the format cannot hold the model's head, an average or
            a dtype, or DEST cannot be uploaded.
    """
    source, dest = path_of(options.source), local(options.dest, "DEST")
    model_dir.check_new(dest)
    of_transformers = options.format in ("transformers", "sentence-transformers")
    if (options.layer, options.pooling) != (None, None) and options.format != "sentence-transformers":
        raise UserError(f"--layer and --pooling are for --format sentence-transformers, and it is {options.format}")
    if options.average != 1 and options.format in ("tf1", "t5x"):
        raise UserError(
            f"--average {options.average} is for --format transformers and onnx: {options.format} takes an optimizer "
            "along, and a mean of weights has none"
        )
    if options.dtype != "float32" and not of_transformers:
        raise UserError(f"--dtype is for --format transformers and sentence-transformers, and it is {options.format}")
    if options.push is not None:
        hub.check_push(options.push)
    model = with_card_facts(model_dir.load(source, average=options.average), options)
    own_vectors = model.description.kind == "sentence_embedding" and (options.layer, options.pooling) == (None, None)
    if options.format == "sentence-transformers" and not own_vectors:
        model = sentence_encoder(model, layer=options.layer, pooling=options.pooling)
    with model_dir.new_directory(dest) as part:
        if of_transformers:
            notes = hf.write(model, part, dtype=options.dtype)
        elif options.format == "onnx":
            notes = write_onnx(model, part)
        elif options.format == "t5x":
            notes = write_t5x(model, source, part)
        else:
            from electra_jax.interchange import tf1

            notes = tf1.write(model, source, part)
    files = sorted(str(path.relative_to(dest)) for path in dest.rglob("*") if path.is_file())
    print(f"{dest}: {', '.join(files)}")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if options.push is not None:
        print(hub.push(dest, options.push))


def with_card_facts(model: Loaded, options: argparse.Namespace) -> Loaded:
    """Return the model with the license and the languages that the command line gives for its model card."""
    given = {name: value for name in ("license", "language") if (value := getattr(options, name))}
    description = model.description
    source = description.source.get(SOURCE, {})
    # The name and text of the old license do not apply to a new one.
    kept = {name: value for name, value in source.items() if not ("license" in given and name.startswith("license"))}
    facts = description.facts | ({SOURCE: kept | given} if given else {})
    return model._replace(description=dataclasses.replace(description, facts=facts))


def write_onnx(model: Loaded, dest: Path) -> list[str]:
    """Write a graph for ONNX Runtime, and return notes for the user.

    Raises:
        UserError: if the extra `onnx` is not installed, or the kind of model has no graph.
    """
    try:
        from electra_jax.interchange import onnx_export
    except ModuleNotFoundError as error:
        raise UserError(
            f"--format onnx needs {error.name}, which is not installed: install electra-jax[onnx]"
        ) from error
    return onnx_export.write(model, dest)


def write_t5x(model: Loaded, source: epath.Path, dest: Path) -> list[str]:
    """Write a T5X checkpoint of the parameters as they were trained, with the model's record and vocabulary.

    The checkpoint of an `electra pretrain` run keeps the optimizer state, so that T5X resumes from its step.

    Returns:
        Notes for the user.

    Raises:
        UserError: if SRC holds T5X checkpoints.
    """
    if orbax_store.is_of_t5x(source):
        raise UserError(f"{source} holds checkpoints of T5X already")
    step, _, tree, _ = orbax_store.newest_state(source)
    trained = "opt_state" in tree
    t5x_layout.write(
        dest,
        step=step,
        params=orbax_store.read_item(source, "params").tree,
        opt_state=orbax_store.read_item(source, "opt_state").tree if trained else None,
    )
    write_model_record(dest, model.description)
    if model.vocabulary is not None:
        write_tokenizer(dest, model.vocabulary)
    return (
        []
        if trained
        else [f"{source} holds no optimizer's state: T5X can evaluate or fine-tune it, but not resume its training"]
    )
