"""One file layer for the local disk and for Google Cloud Storage: `etils.epath`, which Orbax and TFDS use too.

A `gs://` path is read and written through TensorFlow, which is imported at the first of them.
"""

import importlib.util
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from electra_jax.errors import UserError, causes

if TYPE_CHECKING:
    from etils import epath


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is one of an object store."""
    return os.fspath(path).startswith("gs://")


def path_of(name: str | os.PathLike[str]) -> "epath.Path":
    """The path that a user named: a local one, or `gs://BUCKET/...`.

    Raises:
        UserError: an object store of another kind, a misspelt `gs://`, or what `gs://` needs is not installed.
    """
    text = os.fspath(name)
    if is_remote(text):
        if not re.match(r"gs://[^/]+/.", text):
            raise UserError(f"{text} names no place in a bucket: write gs://BUCKET/FOLDER")
        if not has_client():
            raise UserError(f"{text} needs the package google-cloud-storage: install electra-jax with its extra gcs")
    elif found := re.match(r"(\w[\w+.-]+):/", text):
        raise UserError(f"{text} is neither a local path nor gs://BUCKET/...: {found[1]} is not read or written")
    # Not before a path is asked for: help and mistakes are answered at once.
    from etils import epath

    return epath.Path(text)


def local(name: str | os.PathLike[str], what: str) -> Path:
    """A path on this machine's disk, for what is written or read there alone.

    Args:
        name: as the user named it.
        what: the setting or argument that it is, for the error.

    Raises:
        UserError: it is in an object store.
    """
    if is_remote(name):
        raise UserError(f"{what} is {os.fspath(name)}: it must be on this machine's disk; copy with gcloud storage cp")
    return Path(path_of(name))


def has_client() -> bool:
    """Whether the library that Orbax asks about a bucket is installed."""
    try:
        return importlib.util.find_spec("google.cloud.storage") is not None
    except ModuleNotFoundError:
        return False


def absolute(name: str | os.PathLike[str]) -> "epath.Path":
    """`path_of`, from the root on, as Orbax wants it.

    Raises:
        UserError: see `path_of`.
    """
    path = path_of(name)
    return path if is_remote(path) else path.absolute()


def refusal(error: BaseException) -> str | None:
    """What to say of an error with which an object store refused, None for any other.

    TensorFlow, TensorStore and Google's own client each have their own errors; none is imported to look at one.
    """
    for link in causes(error):
        library, text = type(link).__module__, " ".join(str(link).split())
        of_client = library.startswith(("google.cloud.", "google.api_core.", "google.auth."))
        of_tensorflow = (library.startswith("tensorflow.") or isinstance(link, OSError)) and "gs://" in text
        of_tensorstore = isinstance(link, ValueError) and re.search("Error (reading|writing|deleting) .*gs://", text)
        if of_client or of_tensorflow or of_tensorstore:
            return (
                f"Google Cloud Storage refused ({type(link).__name__}: {text[:300]}): check the bucket's name, that "
                "this machine's account may use it, and the network; what is saved there is untouched"
            )
    return None
