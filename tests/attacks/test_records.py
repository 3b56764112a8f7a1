"""Each JSON file of a directory, edited in hundreds of ways, is read or refused in a sentence: never a traceback.

Edits are drawn from a seed: a value anywhere in the file becomes one of another type, a number that nothing can be, or
is left out; or the file itself is cut off, nested too deeply, or no text.
"""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from electra_jax.checkpoints.model_record import read_model_record
from electra_jax.checkpoints.run_record import read_run_record
from electra_jax.checkpoints.seal import METADATA, SEAL, CorruptCheckpointError, check_seal, seal
from electra_jax.config.cache_checks import check_vocabulary_of
from electra_jax.errors import UserError
from electra_jax.files import absolute
from electra_jax.interchange import hf_classes, hf_config, hf_electra, modernbert_config
from electra_jax.interchange.tensors import read_tensors
from electra_jax.model.config import FULL, SLIDING
from electra_jax.reports.finetuning import read_results
from electra_jax.tasks.vocabulary import Vocabulary, read_vocab_file, write_vocab_file
from support.edits import edited
from support.finetuned_model import TOKENS, write_tuned
from support.hf_models import SUBSET

EDITS = 100
# As version 5 of `transformers` writes it.
ROPE = {kind: {"rope_theta": theta, "rope_type": "default"} for kind, theta in ((FULL, 160000.0), (SLIDING, 10000.0))}
MODERNBERT = {
    "architectures": ["ModernBertForSequenceClassification"],
    "model_type": "modernbert",
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 64,
    "max_position_embeddings": 32,
    "local_attention": 8,
    "layer_types": [FULL, SLIDING, SLIDING],
    "rope_parameters": ROPE,
    "classifier_dropout": 0.1,
    "mlp_dropout": 0.0,
    "norm_eps": 1e-5,
    "norm_bias": False,
    "id2label": {"0": "no", "1": "yes"},
    "label2id": {"no": 0, "yes": 1},
}


def read_index(directory: Path) -> None:
    read_tensors(directory)


def read_config(directory: Path) -> None:
    """Read config.json as far as it is the file, and not its tensors, that decides."""
    config, path = hf_config.read_config(directory), directory / hf_config.CONFIG
    tensors, file = read_tensors(directory)
    if hf_classes.architecture_of(config)[1] == modernbert_config.MODEL_TYPE:
        kind = modernbert_config.kind_of(config, tensors, path)
        modernbert_config.encoder_config(config, tensors, path, prefix="model.")
        modernbert_config.head_config(kind, config, tensors, path)
    else:
        hf_electra.read(config, tensors, directory, file)


def read_cache(directory: Path) -> None:
    check_vocabulary_of(str(directory), Vocabulary(TOKENS, lowercase=True, strip_accents=True))


# The file, and what reads its directory.
READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "model": ("model.json", lambda directory: read_model_record(absolute(directory))),
    "run": ("run.json", lambda directory: starts_of(directory)),
    "seal": (SEAL, lambda directory: check_seal(absolute(directory))),
    "results": ("results.json", lambda directory: read_results(directory / "results.json")),
    "cache": ("made_by.json", read_cache),
    "casing": ("vocab.json", lambda directory: read_vocab_file(directory / "vocab.txt")),
    "index": ("model.safetensors.index.json", read_index),
    "electra": ("config.json", read_config),
    "modernbert": ("config.json", read_config),
}


def starts_of(directory: Path) -> None:
    """Reads a record, which is set aside where it is damaged, so that the run goes on."""
    read_run_record(absolute(directory))
    for aside in directory.glob("run.json.damaged*"):
        aside.unlink()
        raise UserError("it was set aside")


def write_sound(name: str, directory: Path) -> None:
    """Write the directory of one of `READERS` as this project, or `transformers`, writes it."""
    if name == "model":
        write_tuned(directory, "token_classification", labels=("B-PER", "O"), task=None)
        return
    directory.mkdir()
    if name == "run":
        (directory / "run.json").write_text(json.dumps({"starts": [{"date": "2026-11-26", "command": "electra"}]}))
    elif name == "seal":
        for file in (METADATA, "weights", "more"):
            (directory / file).write_bytes(file.encode())
        seal(absolute(directory))
    elif name == "results":
        seeds = [{"seed": n, "steps": 3, "best_step": 2, "metrics": {"f1": 0.5 + n}, "failed": None} for n in range(2)]
        summary = {"f1": {"median": 1.0, "mean": 1.0, "std": 0.7, "best": 1.5, "n": 2}}
        counts = {"train": 8, "dev": 4}
        results = {
            "task": "ner",
            "kind": "tagging",
            "main_metric": "f1",
            "best_seed": 1,
            "num_failed": 0,
            "num_examples": counts,
        }
        (directory / "results.json").write_text(json.dumps(results | {"seeds": seeds, "summary": summary}))
    elif name == "cache":
        vocabulary = Vocabulary(TOKENS, lowercase=True, strip_accents=True)
        made_by = {"made_by": "electra cache", "vocabulary_fingerprint": vocabulary.fingerprint, "counts": {"train": 3}}
        (directory / "made_by.json").write_text(json.dumps(made_by))
    elif name == "casing":
        write_vocab_file(absolute(directory / "vocab.txt"), Vocabulary(TOKENS, lowercase=True, strip_accents=True))
    elif name == "index":
        for number in range(2):
            save_file({f"w{number}": np.ones(3, np.float32)}, directory / f"part{number}.safetensors")
        weight_map = {f"w{number}": f"part{number}.safetensors" for number in range(2)}
        (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    elif name == "electra":
        for file in ("config.json", "model.safetensors"):
            shutil.copy(SUBSET / "seqcls" / file, directory)
    else:
        save_file({"classifier.bias": np.zeros(2, np.float32)}, directory / "model.safetensors")
        (directory / "config.json").write_text(json.dumps(MODERNBERT))


@pytest.mark.parametrize("name", READERS)
def test_an_edited_file_is_read_or_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    file, read = READERS[name]
    directory = tmp_path / name
    write_sound(name, directory)
    original = (directory / file).read_bytes()
    read(directory)
    refusals = []
    for number in range(EDITS):
        content = edited(original, random.Random(f"{name} {number}"))
        (directory / file).write_bytes(content)
        try:
            read(directory)
        except (UserError, CorruptCheckpointError) as error:
            refusals.append(str(error))
        except Exception as error:
            raise AssertionError(f"edit {number} of {file}, {content[:2000]!r}") from error
    # Most edits of what is read are mistakes; not all are, and the rest of a file is not looked at.
    assert len(refusals) >= EDITS // 5
    assert not [sentence for sentence in refusals if "\n" in sentence]


@pytest.mark.parametrize("name", ["electra", "modernbert"])
@pytest.mark.parametrize("value", [[[]], ["electra"], {"a": {}}, 7])
def test_a_model_type_that_is_no_name_is_refused(name: str, value: Any, tmp_path: Path) -> None:
    write_sound(name, tmp_path / name)
    path = tmp_path / name / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": value}))
    with pytest.raises(UserError, match=r"config\.json: the architecture .* is not read"):
        read_config(path.parent)


@pytest.mark.parametrize("name", ["electra", "modernbert"])
@pytest.mark.parametrize("depth", [10**9, 10**400])
def test_a_depth_beyond_any_model_is_refused_before_its_layers_are_listed(
    name: str, depth: int, tmp_path: Path
) -> None:
    write_sound(name, tmp_path / name)
    path = tmp_path / name / "config.json"
    # Version 4 of `transformers` states no kind of each layer.
    stated = json.loads(path.read_text()) | {"num_hidden_layers": depth, "layer_types": None}
    path.write_text(json.dumps(stated))
    with pytest.raises(UserError, match=rf"config\.json: .*num_hidden_layers (=|is) {depth}"):
        read_config(path.parent)


@pytest.mark.parametrize("shard", ["../part1.safetensors", "/part1.safetensors", "a/../../x.safetensors", "a\0b"])
def test_an_index_names_no_file_elsewhere(shard: str, tmp_path: Path) -> None:
    write_sound("index", tmp_path / "index")
    (tmp_path / "part1.safetensors").write_bytes((tmp_path / "index/part1.safetensors").read_bytes())
    weight_map = {"w0": "part0.safetensors", "w1": shard}
    (tmp_path / "index/model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(UserError, match="which is not a file next to it"):
        read_index(tmp_path / "index")


def test_a_tensor_in_two_files_of_an_index_is_neither(tmp_path: Path) -> None:
    write_sound("index", tmp_path / "index")
    both = {name: np.zeros(3, np.float32) for name in ("w0", "w1")}
    save_file(both, tmp_path / "index/part1.safetensors")
    with pytest.raises(UserError, match=r"part1\.safetensors holds w0, and so does another file"):
        read_index(tmp_path / "index")


@pytest.mark.parametrize(("tensor", "shard"), [("w0", "part1.safetensors"), ("w2", "part0.safetensors")])
def test_an_index_is_right_about_the_file_of_each_tensor(tensor: str, shard: str, tmp_path: Path) -> None:
    write_sound("index", tmp_path / "index")
    weight_map = {"w0": "part0.safetensors", "w1": "part1.safetensors"} | {tensor: shard}
    (tmp_path / "index/model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(UserError, match=rf"says that {shard} holds {tensor}, and it does not"):
        read_index(tmp_path / "index")


def test_a_tensor_that_a_header_names_twice_is_neither(tmp_path: Path) -> None:
    """`safetensors` would read its numbers as those of the last name."""
    entries = [f'"w": {{"dtype": "{dtype}", "shape": [2], "data_offsets": [0, 8]}}' for dtype in ("F32", "I32")]
    path = tmp_path / "model.safetensors"
    for number in range(2):
        header = f"{{{entries[number]}}}"
        path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(8))
        assert read_tensors(tmp_path)[0]["w"].tolist() == [0, 0]
    header = f"{{{', '.join(entries)}}}"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(8))
    with pytest.raises(UserError, match=r"model\.safetensors, header cannot be read \(the field 'w' twice\): download"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(("file", "flag"), [("flax_model.msgpack", "from_flax"), ("tf_model.h5", "from_tf")])
def test_weights_of_other_libraries_alone_are_told_what_to_do(file: str, flag: str, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(b"weights")
    with pytest.raises(UserError, match=rf"{file} alone, which is not read: save it as model\.safetensors by .*{flag}"):
        read_tensors(tmp_path)


def test_the_prefix_of_data_parallel_is_no_part_of_a_name(tmp_path: Path) -> None:
    save_file({f"module.{name}": np.ones(2, np.float32) for name in "ab"}, tmp_path / "model.safetensors")
    assert sorted(read_tensors(tmp_path)[0]) == ["a", "b"]
    save_file({name: np.ones(2, np.float32) for name in ("module.a", "b")}, tmp_path / "model.safetensors")
    assert sorted(read_tensors(tmp_path)[0]) == ["b", "module.a"]
