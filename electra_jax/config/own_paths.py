"""Find the tokenizer of a model directory whose config.gin names none, or that has been moved or copied since."""

from collections.abc import Mapping
from typing import Any

from electra_jax.files import path_of
from electra_jax.run_directory import CONFIG, CONTINUED, TOKENIZER, VOCABULARY


def tokenizer_bindings(file: str, values: Mapping[str, Any]) -> list[str]:
    """Return the bindings that make a model directory's Gin file name the tokenizer next to it.

    Args:
        file: a Gin file.
        values: the macros that have been bound so far.

    Returns:
        Bindings of the tokenizer macros that have no value, or name a file that does not exist; none if `file` is not
        one that this package writes there, or there is no tokenizer next to it.
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
