"""Upload an exported directory to the Hugging Face hub."""

from pathlib import Path

import huggingface_hub
from huggingface_hub.utils import validate_repo_id

from electra_jax.errors import UserError


def check_push(name: str) -> None:
    """Check that a directory can be uploaded under a name, before the directory is made.

    Args:
        name: ORG/NAME.

    Raises:
        UserError: if the name has another form, nobody is logged in, or the hub cannot be reached.
    """
    try:
        validate_repo_id(name)
    except ValueError as error:
        raise UserError(f"--push {name}: {error}") from error
    if name.count("/") != 1:
        raise UserError(f"--push {name}: give it as ORG/NAME, with your user name or your organisation's")
    if huggingface_hub.get_token() is None:
        raise UserError(
            f"--push {name}: nobody is logged in to the hub: log in with `hf auth login`, or export without --push"
        )
    # The hub raises its own errors, and the network those of the HTTP client.
    try:
        huggingface_hub.HfApi().whoami()
    except Exception as error:
        raise UserError(
            f"--push {name}: the hub is not reached ({reason(error)}): export without --push, and upload DEST from a "
            "machine with a network"
        ) from error


def push(folder: Path, name: str) -> str:
    """Upload every file of a directory to a repository, which is made if it does not exist; return its address.

    Raises:
        UserError: if the directory cannot be uploaded.
    """
    api = huggingface_hub.HfApi()
    try:
        api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Export from electra-jax")
    except Exception as error:
        raise UserError(
            f"{folder} was written, and not uploaded to {name} ({reason(error)}): upload the directory with "
            f"`hf upload {name} {folder}`"
        ) from error
    return f"{api.endpoint}/{name}"


def reason(error: Exception) -> str:
    """Return an error's type and message in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
