"""Set up JAX, TensorFlow and the libraries' messages for a command, once per process.

JAX is imported only where it is needed: the command line uses this module before anything heavy is loaded.
"""

import importlib.util
import logging
import os
import sys
import threading
import warnings
from pathlib import Path

DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def user_cache() -> Path:
    """Return the folder for files that can be recreated.

    It is `ELECTRA_CACHE_DIR` if that is set, otherwise electra_jax in the user's cache folder.
    """
    if chosen := os.environ.get("ELECTRA_CACHE_DIR"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "electra_jax"


def keep_compilations() -> None:
    """Store compiled programs on disk, so that a run that starts again does not compile them again.

    Programs that compile fast are stored too, because a start needs a dozen of them besides the training steps.
    """
    import jax

    jax.config.update("jax_compilation_cache_dir", str(user_cache() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def set_determinism(configuration: object) -> None:
    """Tell XLA to compute the same bits in every run on a GPU, if the mesh of a command's configuration asks for it.

    Otherwise a GPU adds the terms of a scatter in the order in which its threads arrive, and XLA measures again in each
    process which of several kernels is the fastest. A CPU and a TPU do neither. Call this before JAX looks for devices,
    because XLA reads its flags only once.

    Args:
        configuration: the object that Gin built; one without a mesh has no effect.
    """
    if getattr(getattr(configuration, "mesh", None), "deterministic", False):
        # If a flag occurs twice, the last value counts.
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DETERMINISTIC}".strip()


def quieten_libraries() -> None:
    """Hide messages of libraries on which no user can act."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for name in ("asyncio", "jax", "orbax", "tensorflow"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # When a save fails, Orbax leaves coroutines behind, about which Python warns at exit.
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited", category=RuntimeWarning)
    # Orbax's threads print their errors, which are raised again when the checkpoint is awaited.
    threading.excepthook = lambda _: None
    sys.unraisablehook = lambda _: None


def load_tensorflow_quietly() -> None:
    """Import TensorFlow, if it is installed, with standard error closed.

    Whatever the log level, it prints there that it found no GPU, which it must not use anyway.
    """
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            if importlib.util.find_spec("tensorflow") is not None:
                importlib.import_module("electra_jax.tasks.host_tensorflow")
            # Abseil sets its level when it is imported. The errors that Orbax logs are raised as well.
            importlib.import_module("absl.logging").set_verbosity("fatal")
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
