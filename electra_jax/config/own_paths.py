"""Paths in the config.gin of a model directory that was written without them, or has been moved or copied since."""

from collections.abc import Mapping
from typing import Any

from electra_jax.files import path_of
from electra_jax.run_directory import CONFIG, CONTINUED, TOKENIZER, VOCABULARY


def tokenizer_bindings(file: str, values: Mapping[str, Any]) -> list[str]:
    """Return the bindings with which a Gin file of a model directory names the tokenizer that stands beside it.

    Args:
        file: a Gin file.
        values: the macros that have been bound so far.

    Returns:
        Bindings of the tokenizer's macros that have no value, or name a file that does not exist; none where `file` is
        not one that this package writes there, or no tokenizer stands beside it.
    """
    path = path_of(file)
    own = next((path.parent / name for name in (VOCABULARY, TOKENIZER) if (path.parent / name).exists()), None)
    if path.name not in (CONFIG, CONTINUED) or own is None:
        return []
    missing = [name for name in ("TOKENIZER", "VOCAB_FILE") if name in values and _names_nothing(values[name])]
    return [f"{name}={str(own)!r}" for name in missing]


def _names_nothing(value: Any) -> bool:
    # Gin holds `X = %gin.REQUIRED` as a reference that fails only when it is evaluated.
    return not path_of(value).exists() if isinstance(value, str) else str(value) == "%gin.REQUIRED"
