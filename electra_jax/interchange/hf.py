"""Read and write directories of `transformers`, without installing `transformers` or PyTorch."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save

from electra_jax.checkpoints.model_dir import Loaded
from electra_jax.checkpoints.model_record import Description
from electra_jax.errors import UserError
from electra_jax.interchange import (
    blocks,
    carried_task,
    finetuned_task,
    hf_classes,
    hf_config,
    hf_electra,
    hf_modernbert,
    hf_tokenizer,
    layout,
    modernbert_config,
    sentence_transformers,
    source_card,
)
from electra_jax.interchange.card import ENERGIES, write_card
from electra_jax.interchange.imported import Imported, check_vocabulary
from electra_jax.interchange.tensors import read_tensors, rounded

BLOCKS = (blocks.BERT, blocks.MODERNBERT)
PAIR = ("discriminator", "generator")


def is_hf_directory(path: Path) -> bool:
    """Return whether a path is a directory of `transformers` or of sentence-transformers, or holds a pair of them."""
    return (path / hf_config.CONFIG).is_file() or is_pair(path) or sentence_transformers.is_chain(path)


def is_pair(path: Path) -> bool:
    """Return whether a path holds the directories `discriminator` and `generator` of a pair."""
    return all((path / tower / hf_config.CONFIG).is_file() for tower in PAIR)


def read(sources: list[Path]) -> Imported:
    """Read one directory, or the two of a pair, which may come in either order or in one folder.

    Raises:
        UserError: if a file cannot be read, or the files do not describe one model.
    """
    if len(sources) == 1 and is_pair(sources[0]) and not (sources[0] / hf_config.CONFIG).exists():
        sources = [sources[0] / tower for tower in PAIR]
    models = [read_one(source) for source in sources]
    if len(models) == 1:
        return models[0]
    kinds = {model.description.kind: model for model in models}
    if len(models) != 2 or kinds.keys() != set(PAIR):
        raise UserError(
            f"a pair is one ElectraForPreTraining and one ElectraForMaskedLM; {' and '.join(map(str, sources))} are "
            f"{' and '.join(model.description.kind for model in models)}"
        )
    return join(kinds["discriminator"], kinds["generator"])


def read_one(source: Path) -> Imported:
    """Read one directory, of `transformers` or of sentence-transformers.

    Raises:
        UserError: if a file cannot be read, or the files do not describe one model.
    """
    chain = sentence_transformers.read_chain(source) if sentence_transformers.is_chain(source) else None
    folder = source if chain is None else chain.transformer
    config = hf_config.read_config(folder)
    model = read_transformer(folder, config)
    if chain is not None:
        model = sentence_transformers.as_sentence_encoder(model, chain, source)
    facts, notes = source_card.source_facts(source)
    model = carried_task.with_facts(model._replace(notes=[*model.notes, *notes]), facts)
    return carried_task.restored(model, config, folder / hf_config.CONFIG)


def read_transformer(source: Path, config: dict[str, Any]) -> Imported:
    """Read one directory of `transformers`, given the content of its config.json.

    Raises:
        UserError: if a file cannot be read, or the files do not describe one model.
    """
    raw, file = read_tensors(source)
    modern = hf_classes.architecture_of(config)[1] == modernbert_config.MODEL_TYPE
    found = (hf_modernbert if modern else hf_electra).read(config, raw, source, file)
    description = found.description
    left = layout.check(found.tensors, found.names, str(source / file))
    length = hf_tokenizer.stated_length(source)
    if description.head is not None and length is not None:
        description = dataclasses.replace(description, facts=description.facts | {"longest row": length})
    vocabulary = hf_tokenizer.read_vocabulary(source)
    check_vocabulary(vocabulary, description.encoder.vocab_size, source)
    notes = [f"left over in {source / file}: {layout.listed(left)}"] if left else []
    notes += found.notes
    if vocabulary is None:
        other = hf_tokenizer.unread(source)
        lacks = f"the tokenizer of {source}, {other}, is not read" if other else f"{source} holds no tokenizer"
        notes.append(
            f"{lacks}: only token ids can be read, unless you save a tokenizer.json there (a fast tokenizer's "
            "save_pretrained in transformers) and import again"
        )
    params = layout.assemble(found.tensors, found.names, found.template)
    return Imported(description, params, None, 0, vocabulary, notes)


def join(discriminator: Imported, generator: Imported) -> Imported:
    """Join two towers into one model; the generator keeps its own embeddings if they differ from the discriminator's.

    Raises:
        UserError: if the towers have different vocabularies.
    """
    same = embeddings_equal(discriminator, generator)
    notes = [*discriminator.notes, *generator.notes]
    if not same:
        notes.append("the two towers have different embeddings: the generator keeps its own")
    sizes = [model.description.encoder.vocab_size for model in (discriminator, generator)]
    if sizes[0] != sizes[1]:
        raise UserError(f"the discriminator has {sizes[0]} words and the generator {sizes[1]}: they are not a pair")
    vocabulary = discriminator.vocabulary or generator.vocabulary
    if discriminator.vocabulary and generator.vocabulary and discriminator.vocabulary != generator.vocabulary:
        raise UserError("the discriminator's and the generator's vocabularies differ: they are not a pair")
    description = dataclasses.replace(
        discriminator.description,
        kind="pretraining",
        generator=generator.description.generator,
        generator_embeddings=not same,
    )
    tower = dict(generator.params["generator"])
    if not same:
        tower["embeddings"] = generator.params["embeddings"]
    return Imported(description, {**discriminator.params, "generator": tower}, None, 0, vocabulary, notes)


def embeddings_equal(discriminator: Imported, generator: Imported) -> bool:
    """Return whether both models have the same embeddings."""
    ours, theirs = (flatten_dict(model.params["embeddings"], sep="/") for model in (discriminator, generator))
    return ours.keys() == theirs.keys() and all(np.array_equal(leaf, theirs[path]) for path, leaf in ours.items())


def split(model: Loaded) -> dict[str, Loaded]:
    """Split a model into those that `transformers` keeps in separate folders, by folder; "" is DEST itself."""
    description = model.description
    if description.kind != "pretraining":
        return {"": model}
    generator = model.params["generator"]
    shared = {"embeddings": generator["embeddings"] if description.generator_embeddings else model.params["embeddings"]}
    parts = {
        "discriminator": (
            dataclasses.replace(description, kind="discriminator", generator=None, generator_embeddings=False),
            {name: model.params[name] for name in ("embeddings", "discriminator")},
        ),
        "generator": (
            dataclasses.replace(description, kind="generator", discriminator=None, generator_embeddings=False),
            {**shared, "generator": {name: generator[name] for name in ("encoder", "head")}},
        ),
    }
    return {name: model._replace(description=part, params=params) for name, (part, params) in parts.items()}


def write(model: Loaded, dest: Path, *, dtype: str = "float32") -> list[str]:
    """Write one directory, or `dest/discriminator` and `dest/generator` for a pair.

    Args:
        model: the model.
        dest: the directory.
        dtype: the dtype of the tensors in the files, a name of `tensors.DTYPES`.

    Returns:
        Notes for the user.

    Raises:
        UserError: if `transformers` has no class for the head or no place for a switch of the encoder, or a number is
            too large for the dtype.
    """
    notes = []
    for name, part in split(model).items():
        try:
            modern = blocks.blocks_of(part.description, known=BLOCKS, reader="transformers") == blocks.MODERNBERT
        except UserError as error:
            # The discriminator is the result of a run, so the export goes on without the generator.
            if name != "generator":
                raise
            notes.append(f"the generator was left out: {error}")
            continue
        notes += write_part(part, dest / name, modern=modern, dtype=dtype)
    if model.vocabulary is None:
        notes.append("the model has no vocabulary: no tokenizer files were written")
    # The towers of a pair have one tokenizer.
    return list(dict.fromkeys(notes))


def write_part(part: Loaded, folder: Path, *, modern: bool, dtype: str) -> list[str]:
    """Write the directory of one tower, with or without a head, as ModernBERT or as ELECTRA; return notes.

    Raises:
        UserError: if `transformers` has no class for the head, or a number is too large for the dtype.
    """
    limits = refuse_or_note(part.description, modern=modern)
    vectors, length = part.description.head, finetuned_task.row_length(part.description)
    makes_vectors = part.description.kind == "sentence_embedding"
    carried = carried_task.fields_of(part.description)
    part = finetuned_task.folded(part._replace(description=sentence_transformers.without_head(part.description)))
    description, encoder = part.description, part.description.encoder
    form = f"`{(modernbert_config if modern else hf_classes).ARCHITECTURES[description.kind]}` of transformers"
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensors in (hf_modernbert if modern else hf_electra).files_of(description, part.params).items():
        # `save_file` makes a file that only its owner can read, whatever the umask.
        (folder / name).write_bytes(save(rounded(tensors, dtype), metadata={"format": "pt"}))
    notes, special_ids = list(limits), {"pad": 0}
    if part.vocabulary is not None:
        special_ids = part.vocabulary.special_ids
        types = description.head is not None and encoder.type_vocab_size > 1
        notes += hf_tokenizer.write_tokenizer(
            folder,
            part.vocabulary,
            max_length=length,
            types=types,
            has_types=encoder.type_vocab_size > 0,
        )
    config = (modernbert_config if modern else hf_config).to_config(description, special_ids)
    hf_tokenizer.write_json(folder / hf_config.CONFIG, config | {"dtype": dtype} | carried)
    if makes_vectors and vectors is not None:
        sentence_transformers.write_chain(folder, vectors, length=length)
        form = f"a model of sentence-transformers, and as {form}"
        part = part._replace(description=dataclasses.replace(part.description, kind="sentence_embedding"))
    write_card(folder, part, form, limits)
    return notes


def refuse_or_note(description: Description, *, modern: bool) -> list[str]:
    """Return notes on the parts of a model that `transformers` cannot hold.

    Raises:
        UserError: if it has no class for the head, or none for a model that reads from left to right.
    """
    if description.reads_left_to_right:
        raise UserError(
            "transformers reads ELECTRA and ModernBERT from both sides, and this language model reads from the left: "
            "fine-tune it, and export that model; or export with --format t5x"
        )
    notes = [ENERGIES] if description.gives_energies else []
    notes += hf_modernbert.export_notes(description) if modern else []
    problem = None if description.head is None else finetuned_task.head_problem(description.head, modern=modern)
    if problem is not None:
        raise UserError(f"{problem}, or export with --format {'t5x' if modern else 'tf1'}")
    return notes + finetuned_task.task_notes(description)
