"""Read and write directories of `transformers`, without `transformers` or PyTorch."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from electra_jax.checkpoints.model_dir import Loaded
from electra_jax.checkpoints.model_record import Description, abstract_params
from electra_jax.errors import UserError
from electra_jax.interchange import hf_config, hf_names, hf_tokenizer, layout
from electra_jax.interchange.card import write_card
from electra_jax.interchange.imported import Imported, check_vocabulary
from electra_jax.interchange.tensors import Tensors, read_tensors

WEIGHTS = "model.safetensors"
PAIR = ("discriminator", "generator")


def is_hf_directory(path: Path) -> bool:
    """Return whether a path is a directory of `transformers`, or holds a pair of them."""
    return (path / hf_config.CONFIG).is_file() or is_pair(path)


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
    """Read one directory.

    Raises:
        UserError: if a file cannot be read, or the files do not describe one model.
    """
    config = hf_config.read_config(source)
    path = source / hf_config.CONFIG
    raw, file = read_tensors(source)
    tensors = modernised(raw)
    kind = hf_config.kind_of(config, tensors, path)
    prefix = next((p for p in ("electra.", "bert.") if any(name.startswith(p) for name in tensors)), "")
    encoder = hf_config.encoder_config(config, tensors, path, prefix=prefix)
    head = hf_config.head_config(kind, config, tensors)
    description = Description(
        kind=kind,
        discriminator=None if kind == "generator" else encoder,
        generator=encoder if kind == "generator" else None,
        generator_embeddings=False,
        head=head,
        labels=hf_config.labels_of(kind, config, head, path),
        facts={"imported from": source.resolve().name, "format": "transformers"},
    )
    template = abstract_params(description)
    names = hf_names.layout(description, template, prefix=prefix)
    untie(tensors, prefix, source / file)
    left = layout.check(tensors, names, str(source / file))
    vocabulary = hf_tokenizer.read_vocabulary(source)
    check_vocabulary(vocabulary, encoder.vocab_size, source)
    notes = [f"left over in {source / file}: {layout.listed(left)}"] if left else []
    if config.get("num_attention_heads") is None:
        notes.append(
            f"{path} does not say num_attention_heads: {encoder.num_attention_heads}, as transformers takes it"
        )
    if vocabulary is None:
        other = hf_tokenizer.unread(source)
        found = f"the tokenizer of {source}, {other}, is not read" if other else f"{source} holds no tokenizer"
        notes.append(
            f"{found}: only token ids can be read, unless you save a tokenizer.json there (a fast tokenizer's "
            "save_pretrained in transformers) and import again"
        )
    return Imported(description, layout.assemble(tensors, names, template), None, 0, vocabulary, notes)


def modernised(raw: Tensors) -> Tensors:
    """Rename the tensors of old files: LayerNorm's gamma and beta become weight and bias, position_ids are dropped."""
    renamed = {}
    for name, tensor in raw.items():
        if name.endswith("embeddings.position_ids"):
            continue
        renamed[name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")] = (
            tensor
        )
    return renamed


def untie(tensors: Tensors, prefix: str, file: Path) -> None:
    """Remove the generator's output table from the tensors, because it must equal the embedding table.

    Raises:
        UserError: if it differs from the embedding table.
    """
    words = tensors.get(f"{prefix}embeddings.word_embeddings.weight")
    tied = tensors.pop("generator_lm_head.weight", None)
    if tied is not None and (words is None or not np.array_equal(tied, words)):
        raise UserError(
            f"{file}: generator_lm_head.weight differs from {prefix}embeddings.word_embeddings.weight, "
            "but a generator's output table is its embedding table"
        )


def join(discriminator: Imported, generator: Imported) -> Imported:
    """Join two towers to one model; the generator keeps its own embeddings if they differ from the discriminator's.

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
    return all(np.array_equal(leaf, theirs[path]) for path, leaf in ours.items())


def split(model: Loaded) -> dict[str, Loaded]:
    """Return the models that `transformers` keeps in folders of their own, by folder; "" stands for DEST itself."""
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


def write(model: Loaded, dest: Path) -> list[str]:
    """Write one directory, or `dest/discriminator` and `dest/generator` for a pair.

    Returns:
        Notes for the user.

    Raises:
        UserError: if `transformers` has no class for the head.
    """
    notes = refuse_or_note(model.description)
    for name, part in split(model).items():
        folder = dest / name
        folder.mkdir(parents=True, exist_ok=True)
        template = abstract_params(part.description)
        names = hf_names.layout(part.description, template, prefix=prefix_of(part.description))
        save_file(layout.disassemble(part.params, names), folder / WEIGHTS, metadata={"format": "pt"})
        config, encoder = hf_config.to_config(part.description), part.description.encoder
        if part.vocabulary is not None:
            config["pad_token_id"] = part.vocabulary.special_ids.get("pad")
            types = part.description.head is not None and encoder.type_vocab_size > 1
            length = encoder.max_position_embeddings
            notes += hf_tokenizer.write_tokenizer(folder, part.vocabulary, max_length=length, types=types)
        hf_tokenizer.write_json(folder / hf_config.CONFIG, config)
        write_card(folder / "README.md", part, f"`{hf_config.ARCHITECTURES[part.description.kind]}` of transformers")
    if model.vocabulary is None:
        notes.append("the model has no vocabulary: no tokenizer files were written")
    # The towers of a pair have one tokenizer.
    return list(dict.fromkeys(notes))


def prefix_of(description: Description) -> str:
    """Return the prefix of the encoder's tensors, which is empty for an encoder without a head."""
    return "" if description.kind == "encoder" else "electra."


def refuse_or_note(description: Description) -> list[str]:
    """Return notes on what `transformers` cannot hold of a head.

    Raises:
        UserError: if it has no class for the head.
    """
    head = description.head
    if head is None:
        return []
    remedies: dict[str, Any] = {
        "joint_question_answering": "fine-tune with the head question_answering",
        "sequence_classification_reference": "fine-tune with the head sequence_classification",
    }
    if head.kind in remedies:
        raise UserError(
            f"transformers has no class for the head {head.kind}: {remedies[head.kind]} for a model that it loads, "
            "or export with --format tf1"
        )
    notes = []
    if head.mask_questions:
        notes.append("transformers does not mask questions: its logits there lack the -1000 that ours have")
    if head.answerable != "none":
        notes.append("transformers has no place for the answerability logit: it was left out")
    return notes
