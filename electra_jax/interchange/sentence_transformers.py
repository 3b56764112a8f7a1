"""Read and write the files that a sentence-transformers directory adds to a directory of `transformers`.

`modules.json` lists a chain of modules with a folder each: a Transformer, which is a directory of `transformers`, a
Pooling and, optionally, a Normalize. The Transformer is at the top, or in a folder `0_Transformer`, where old versions
wrote it. The names of the classes and the fields of Pooling are those of versions 2 to 4, or those of later versions,
which read both.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from electra_jax import json_files
from electra_jax.checkpoints.model_record import Description
from electra_jax.checkpoints.sentence_encoder import NORMALIZED, pooling_head
from electra_jax.errors import UserError
from electra_jax.interchange import hf_tokenizer
from electra_jax.interchange.hf_tokenizer import write_json
from electra_jax.interchange.imported import Imported
from electra_jax.model.heads import HeadConfig

MODULES = "modules.json"
POOLING = "1_Pooling"
NORMALIZE = "2_Normalize"
# The settings of the Transformer; the older names belong to other classes of the same module.
SETTINGS = ("sentence_bert_config.json", "sentence_roberta_config.json", "sentence_distilbert_config.json")
SETTINGS += ("sentence_camembert_config.json", "sentence_albert_config.json", "sentence_xlm-roberta_config.json")
CARD_SETTINGS = "config_sentence_transformers.json"
# The module of the classes in versions 2 to 4, where later versions still find them.
PACKAGE = "sentence_transformers.models"
# Fields of Pooling before version 5, by the values of `pooling_mode` that replace them.
MODES = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


class Chain(NamedTuple):
    """Hold the settings in modules.json and in the folders that it names.

    Attributes:
        transformer: the directory of `transformers`.
        pooling: "mean" or "cls".
        normalize: whether vectors are divided by their length.
        length: the most tokens of a text; None if it is not stated.
        notes: sentences for the user.
    """

    transformer: Path
    pooling: str
    normalize: bool
    length: int | None
    notes: list[str]


def is_chain(directory: Path) -> bool:
    """Return whether a path is a sentence-transformers directory."""
    return (directory / MODULES).is_file()


def read_chain(directory: Path) -> Chain:
    """Read modules.json and the settings of its modules.

    Raises:
        UserError: if a file cannot be read, or a module or the pooling is unknown here.
    """
    path = directory / MODULES
    entries = json_files.read_json(path, list[dict[str, Any]])
    names = [str(entry.get("type", "")).rpartition(".")[2] for entry in entries]
    if names not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise UserError(
            f"{path} has the modules {', '.join(names) or 'none'}: only Transformer, Pooling and perhaps Normalize are "
            "read; import its folder of the Transformer alone for the encoder without the others"
        )
    folders = [inside(directory, str(entry.get("path", "")), path) for entry in entries]
    settings = next((folders[0] / name for name in SETTINGS if (folders[0] / name).is_file()), None)
    stated = {} if settings is None else json_files.read_json(settings, dict[str, Any])
    length = stated.get("max_seq_length")
    if length is not None and (not isinstance(length, int) or length < 1):
        raise UserError(f"{settings}: max_seq_length is {length!r}: it must be a number of tokens")
    notes = []
    if stated.get("do_lower_case"):
        notes.append(f"{settings} lower-cases texts before its tokenizer: lower-case them yourself if yours does not")
    asked = directory / CARD_SETTINGS
    prompts = (json_files.read_json(asked, dict[str, Any]) if asked.is_file() else {}).get("prompts") or {}
    notes += (
        [f"{asked} has the prompts {prompts!r}: put them before your texts yourself"] if any(prompts.values()) else []
    )
    return Chain(folders[0], pooling_of(folders[1]), "Normalize" in names, length, notes)


def inside(directory: Path, name: str, path: Path) -> Path:
    """Return the path of a folder that modules.json names.

    Raises:
        UserError: if the folder is outside the directory.
    """
    folder = directory / name
    if not folder.resolve().is_relative_to(directory.resolve()):
        raise UserError(f"{path} names {name!r}, which is outside its directory: put it right")
    return folder


def pooling_of(folder: Path) -> str:
    """Return the pooling that a folder's config.json states, "mean" if it states none.

    Raises:
        UserError: if the pooling is neither "mean" nor "cls", or the file cannot be read.
    """
    path = folder / "config.json"
    config = json_files.read_json(path, dict[str, Any])
    stated = config.get("pooling_mode")
    if stated is None:
        found = [mode for mode, field in MODES.items() if config.get(field)] or ["mean"]
    else:
        found = [stated] if isinstance(stated, str) else list(stated)
    if found not in (["mean"], ["cls"]):
        raise UserError(f"{path}: the pooling is {' and '.join(map(str, found))}: only mean and cls are read")
    return found[0]


def as_sentence_encoder(model: Imported, chain: Chain, source: Path) -> Imported:
    """Return the encoder of an imported model with the pooling and normalization of a chain of modules.

    Raises:
        UserError: if the model is a masked language model rather than an encoder.
    """
    description = model.description
    encoder = description.discriminator
    if encoder is None:
        raise UserError(f"{source} is built on a masked language model: save its encoder alone (AutoModel) there")
    stated = hf_tokenizer.stated_length(chain.transformer) if chain.length is None else chain.length
    length = {} if stated is None else {"longest row": stated}
    return model._replace(
        description=Description(
            kind="sentence_embedding",
            discriminator=encoder,
            generator=None,
            generator_embeddings=False,
            head=pooling_head(encoder, chain.pooling, normalize=chain.normalize),
            labels=(),
            facts=description.facts | length | {"format": "sentence-transformers"},
        ),
        params={
            "embeddings": model.params["embeddings"],
            "discriminator": {"encoder": model.params["discriminator"]["encoder"]},
        },
        notes=[*model.notes, *chain.notes],
    )


def without_head(description: Description) -> Description:
    """Return the description of a bare encoder for a model that makes vectors; that of any other model as it is."""
    if description.kind != "sentence_embedding":
        return description
    return dataclasses.replace(description, kind="encoder", head=None)


def write_chain(folder: Path, head: HeadConfig, *, length: int) -> None:
    """Write the modules into a directory of `transformers`, in the form that every version from 2 on reads.

    Args:
        folder: the directory.
        head: the head that pools the states.
        length: the most tokens of a text.
    """
    classes = {"": "Transformer", POOLING: "Pooling"} | ({NORMALIZE: "Normalize"} if head.kind == NORMALIZED else {})
    entries = [
        {"idx": number, "name": str(number), "path": path, "type": f"{PACKAGE}.{name}"}
        for number, (path, name) in enumerate(classes.items())
    ]
    write_json(folder / MODULES, entries)
    for path in list(classes)[1:]:
        (folder / path).mkdir()
    modes = {field: mode == head.classifier_pooling for mode, field in MODES.items()}
    write_json(folder / POOLING / "config.json", {"word_embedding_dimension": head.num_labels, **modes})
    write_json(folder / SETTINGS[0], {"max_seq_length": length, "do_lower_case": False})
    write_json(folder / CARD_SETTINGS, {"similarity_fn_name": "cosine", "prompts": {}, "default_prompt_name": None})
