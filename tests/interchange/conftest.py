"""Directories as transformers writes them, to import."""

import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from support.hf_models import SUBSET, discriminator_in, write_vocabulary


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return discriminator_in(tmp_path)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Write a discriminator and a generator with the same embeddings and vocabulary."""
    folders = tuple(Path(shutil.copytree(SUBSET / name, tmp_path / name)) for name in ("pretraining", "maskedlm"))
    discriminator, generator = (load_file(folder / "model.safetensors") for folder in folders)
    for name in discriminator:
        if name.startswith("electra.embeddings."):
            generator[name] = discriminator[name]
    save_file(generator, folders[1] / "model.safetensors")
    for folder in folders:
        write_vocabulary(folder, 40)
    return folders
