"""Seal a checkpoint with the size and CRC-32 of each of its files, and check the seal."""

import json

from etils import epath

from electra_jax.distributed import processes
from electra_jax.errors import UserError
from electra_jax.files import regular, replace_file, size_and_crc32, size_and_time
from electra_jax.json_files import read_json

SEAL = "integrity.json"
METADATA = "_CHECKPOINT_METADATA"
# Orbax writes this into an object store, which cannot rename, when a checkpoint or a part of it is complete.
COMMITTED = "commit_success.txt"
# Orbax writes these after the seal.
AFTER_SEAL = (METADATA, COMMITTED)


class CorruptCheckpointError(Exception):
    """A checkpoint differs from what was written; the message names the file or the reason."""


def seal(directory: epath.Path) -> None:
    """Write the checksums of a checkpoint's final files beside them."""
    final = {name: size_and_crc32(path) for name, path in sealable(directory).items() if name not in AFTER_SEAL}
    replace_file(directory / SEAL, json.dumps(final, indent=1), durable=True)


def check_seal(directory: epath.Path) -> None:
    """Compare a checkpoint's files with its seal.

    Raises:
        CorruptCheckpointError: if a file is missing, cannot be read or differs.
    """
    for name in (METADATA, SEAL):
        if not (directory / name).exists():
            raise CorruptCheckpointError(f"{name} is missing")
    try:
        sealed = read_json(directory / SEAL, dict[str, list[int]])
    except UserError as error:
        raise CorruptCheckpointError(f"{SEAL} cannot be read") from error
    found = sealable(directory)
    try:
        for path in found.values():
            # Orbax would wait for a pipe's writer.
            regular(path)
        for name, expected in sealed.items():
            if name not in found:
                raise CorruptCheckpointError(f"{name} is missing")
            # The size reveals most damage without reading the file.
            if expected[:1] != [size_and_time(found[name])[0]] or expected != size_and_crc32(found[name]):
                raise CorruptCheckpointError(f"{name} is not what was written")
    except OSError as error:
        raise CorruptCheckpointError(f"{error.filename} cannot be read ({error.strerror})") from error


def check_seal_everywhere(directory: epath.Path) -> None:
    """Compare a checkpoint's files with its seal in one process, on behalf of all.

    Raises:
        CorruptCheckpointError: in every process, if a file is missing or differs.
    """
    found = None
    if processes.leader():
        try:
            check_seal(directory)
        except CorruptCheckpointError as error:
            found = str(error)
    found = processes.gather(found)[0]
    if found is not None:
        raise CorruptCheckpointError(found)


def sealable(directory: epath.Path) -> dict[str, epath.Path]:
    """Return every file below a checkpoint directory except the seal, by relative path."""
    files = [folder / name for folder, _, names in directory.walk() for name in names if not name.startswith(SEAL)]
    return {str(path.relative_to(directory)): path for path in sorted(files)}
