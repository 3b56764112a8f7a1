"""Settings of JAX that every verb that computes wants, made once per process."""

import os
from pathlib import Path

import jax


def user_cache() -> Path:
    """The folder for what can be made again: `ELECTRA_CACHE_DIR`, else electra_jax in the user's cache folder."""
    if chosen := os.environ.get("ELECTRA_CACHE_DIR"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "electra_jax"


def keep_compilations() -> None:
    """Keeps compiled programs on disk, so that a run that starts again does not compile again."""
    jax.config.update("jax_compilation_cache_dir", str(user_cache() / "xla"))
