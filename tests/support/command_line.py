"""`electra` in processes of its own, on a small text and with a model that compiles in seconds."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from electra_jax.distributed.group import free_port
from support.tiny_model import MODERN_BLOCK

# The command that was installed beside this Python.
COMMAND = str(Path(sys.executable).with_name("electra"))
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [one + vowel + end for one in "bdkm" for vowel in "aeiou" for end in ("", "n", "ra", "lo")]
SMALL = {
    "WARMUP_STEPS": 3,
    "BATCH_SIZE": 8,
    "SEQUENCE_LENGTH": 32,
    "LOG_EVERY": 1,
    "EVALUATION_EXAMPLES": 8,
    "HELD_OUT_FRACTION": 0.1,
    "NUM_PROCESSES": 1,
    "VOCAB_SIZE": len(SPECIAL) + len(WORDS),
    "encoder.EncoderConfig.hidden_size": 16,
    "encoder.EncoderConfig.embedding_size": 16,
    "encoder.EncoderConfig.num_hidden_layers": 2,
    "encoder.EncoderConfig.intermediate_size": 32,
    "encoder.EncoderConfig.max_position_embeddings": 32,
    "encoder.EncoderConfig.scan_unroll": 1,
}
MODERN = {f"encoder.EncoderConfig.{name}": value for name, value in MODERN_BLOCK.items()} | {
    "run_config.PretrainingRun.generator_width_fraction": 1.0
}
STEPS = {"TRAIN_STEPS": 40, "SAVE_EVERY": 4, "EVALUATE_EVERY": 20, "KEEP": 2}
FILES = ["--gin_file=gin/models/tiny.gin", "--gin_file=gin/runs/pretrain.gin"]


def write_small_text(folder: Path) -> None:
    """`text.txt`, 80 documents of random words, and `vocab.txt` of those words."""
    draw = random.Random(0)
    documents = ["\n".join(" ".join(draw.choices(WORDS, k=12)) for _ in range(4)) for _ in range(80)]
    (folder / "text.txt").write_text("\n\n".join(documents) + "\n")
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in [*SPECIAL, *WORDS]))


def small_run(folder: Path, model_dir: Path, **changes: Any) -> list[str]:
    """The arguments of `electra pretrain` on `write_small_text`'s files; `changes` are macros."""
    texts = {
        "CORPUS": str(folder / "text.txt"),
        "VOCAB_FILE": str(folder / "vocab.txt"),
        "CACHE_DIR": str(folder / "caches"),
        "MODEL_DIR": str(model_dir),
    }
    return ["pretrain", *FILES, *(f"--gin.{name}={value!r}" for name, value in (SMALL | texts | changes).items())]


def environment(cache: Path, *, devices: int = 1) -> dict[str, str]:
    """Of a process that shares compiled programs through `cache` with the others."""
    return os.environ | {
        # Of two values of a flag the last one counts.
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        "ELECTRA_CACHE_DIR": str(cache),
        # The programs of so small a model compile too fast to be kept otherwise.
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def start(arguments: list[str], cache: Path, *, devices: int = 1) -> subprocess.Popen[str]:
    """`electra ARGUMENTS`, running."""
    return subprocess.Popen(
        [COMMAND, *arguments],
        env=environment(cache, devices=devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_group(arguments: list[str], cache: Path, *, count: int) -> list[subprocess.Popen[str]]:
    """`electra ARGUMENTS` as several processes on this machine, running."""
    address = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": str(count)}
    return [
        subprocess.Popen(
            [COMMAND, *arguments],
            env=environment(cache) | address | {"JAX_PROCESS_ID": str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]


def finish(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Its exit code and what it said."""
    stdout, stderr = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def electra(arguments: list[str], cache: Path, *, devices: int = 1) -> subprocess.CompletedProcess[str]:
    """`electra ARGUMENTS` from beginning to end."""
    return finish(start(arguments, cache, devices=devices))


def signal_when(process: subprocess.Popen[str], number: int, condition: Callable[[], bool], delay: float = 0.0) -> None:
    """Sends a signal `delay` seconds after a condition holds; fails if the process ends before that."""
    while not condition():
        assert process.poll() is None, finish(process)
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(number)


def reported_steps(model_dir: Path, split: str = "train") -> list[int]:
    """The steps of a split's lines in metrics.jsonl, whole lines only."""
    path = model_dir / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [line["step"] for line in map(json.loads, lines) if line["split"] == split]


def unfinished_saves(model_dir: Path) -> list[str]:
    """Names under which Orbax is writing, or was when it was killed."""
    checkpoints = model_dir / "checkpoints"
    return [path.name for path in checkpoints.iterdir() if not path.name.isdigit()] if checkpoints.is_dir() else []


def checkpoint_steps(model_dir: Path) -> list[int]:
    """Steps whose checkpoints stand under their final names."""
    return sorted(int(path.name) for path in (model_dir / "checkpoints").iterdir() if path.name.isdigit())


def arrays(model_dir: Path, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint by its path: parameters, optimizer, step, key; read by Orbax alone."""
    path = model_dir / "checkpoints" / str(step) / "state"
    reader = ocp.PyTreeCheckpointer()
    stored = reader.metadata(path).item_metadata.tree
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored, is_leaf=_is_array)
    leaves = jax.tree_util.tree_leaves_with_path(reader.restore(path, restore_args=as_numpy))
    return {jax.tree_util.keystr(place, simple=True, separator="/"): np.asarray(leaf) for place, leaf in leaves}


def _is_array(leaf: object) -> bool:
    return hasattr(leaf, "shape")


def assert_same_arrays(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    """Bit for bit."""
    assert first.keys() == second.keys()
    different = [name for name in first if first[name].tobytes() != second[name].tobytes()]
    assert not different, different
