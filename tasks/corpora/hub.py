"""Fetch the files of a data set from the Hugging Face hub into its cache on this machine."""

import fnmatch
import re
from pathlib import Path, PurePosixPath

from electra_jax.errors import UserError
from electra_jax.tasks.corpora.byte_streams import EXPANSION

# hf:ORG/NAME[:glob of files]
_ADDRESS = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:(?P<pattern>.+))?")
_SUFFIXES = (".parquet", ".arrow", ".jsonl", ".json", ".csv", ".tsv", ".txt", ".zip", ".tar")


def fetch_dataset(address: str) -> tuple[list[Path], Path]:
    """Fetch the files of a data set that are not on this machine yet.

    Without a glob, these are the files of its training split, or all files if their names name no split.

    Args:
        address: ORG/NAME, or ORG/NAME:GLOB for files in it.

    Returns:
        The files, sorted, and the folder that holds all of them.

    Raises:
        UserError: if the library is not installed, the hub cannot be reached, there is no such data set or file, or the
            data set has files of several kinds and no glob chooses among them.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise UserError(f"hf:{address} is not of the form hf:ORG/NAME or hf:ORG/NAME:GLOB.")
    name, pattern = match["name"], match["pattern"]
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            f"hf:{name} needs the package huggingface_hub: install it, or download the files and name them as CORPUS."
        ) from error
    # The hub raises its own errors and the network those of the HTTP client; only some of them are OSErrors.
    try:
        files = huggingface_hub.HfApi().list_repo_files(name, repo_type="dataset")
        chosen = chosen_files(files, pattern, name)
        folder = huggingface_hub.snapshot_download(name, repo_type="dataset", allow_patterns=chosen)
    except UserError:
        raise
    except huggingface_hub.errors.RepositoryNotFoundError as error:
        raise UserError(
            f"the hub has no data set {name}, or it is private: check the name, or log in with `hf auth login`."
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"hf:{name} cannot be fetched, the hub is not reached ({type(error).__name__}: {reason}): try again with a "
            "network, or download the files on another machine and name them as CORPUS."
        ) from error
    return [Path(folder) / file for file in chosen], Path(folder)


def chosen_files(files: list[str], pattern: str | None, name: str) -> list[str]:
    """Return the files of a data set to read, sorted.

    Args:
        files: all its files, by their paths in it.
        pattern: a glob, or None for those of the training split.
        name: the data set's name, for errors.

    Raises:
        UserError: if there is none, or they are of several kinds.
    """
    if pattern is not None:
        chosen = sorted(file for file in files if fnmatch.fnmatchcase(file, pattern))
        if not chosen:
            raise UserError(f"no file of hf:{name} matches {pattern!r} (it has: {_some(sorted(files))}).")
        return chosen
    data = sorted(file for file in files if _suffix(file) in _SUFFIXES and not _is_about(file))
    chosen = [file for file in data if re.search(r"(?<![a-z])train", file)] or data
    kinds = sorted({_suffix(file) for file in chosen})
    if len(kinds) != 1 or len({PurePosixPath(file).parts[0] for file in chosen if "/" in file}) > 1:
        what = "files of several kinds or folders" if chosen else "no file of a known kind"
        raise UserError(
            f"hf:{name} has {what}: choose with a glob, as in hf:{name}:FOLDER/*.parquet "
            f"(it has: {_some(chosen or sorted(files))})."
        )
    return chosen


def _suffix(file: str) -> str:
    path = PurePosixPath(file)
    return (path.with_suffix("") if path.suffix in EXPANSION else path).suffix


def _is_about(file: str) -> bool:
    """Return whether a file describes the data set."""
    return PurePosixPath(file).name in ("dataset_infos.json", "dataset_info.json", "state.json", "dataset_dict.json")


def _some(files: list[str]) -> str:
    return ", ".join(files[:5]) + (", ..." if len(files) > 5 else "")
