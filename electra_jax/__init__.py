"""Pre-train encoders by replaced-token detection (ELECTRA) in JAX, and fine-tune them."""

from typing import Any

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import `electra_jax.load` when it is first used: `import electra_jax` itself loads nothing."""
    if name == "load":
        from electra_jax.inference.api import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
