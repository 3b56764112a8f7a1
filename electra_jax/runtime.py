"""Settings of JAX and TensorFlow that verbs want, made once per process."""

import importlib
import os
from pathlib import Path

import jax


def user_cache() -> Path:
    """The folder for what can be made again: `ELECTRA_CACHE_DIR`, else electra_jax in the user's cache folder."""
    if chosen := os.environ.get("ELECTRA_CACHE_DIR"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "electra_jax"


def keep_compilations() -> None:
    """Keeps compiled programs on disk, so that a run that starts again does not compile again.

    Also those that compile fast: a start has a dozen of them beside the steps.
    """
    jax.config.update("jax_compilation_cache_dir", str(user_cache() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def load_tensorflow_quietly() -> None:
    """Imports TensorFlow with standard error closed.

    It says there, past every log level, that it found no GPU, and it must not use one anyway.
    """
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            importlib.import_module("electra_jax.tasks.host_tensorflow")
            # Abseil sets its level when it is imported. What Orbax logs as an error is raised as well.
            importlib.import_module("absl.logging").set_verbosity("fatal")
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
