"""`python -m electra_jax.comparison_piece ARGUMENTS` is `electra ARGUMENTS` that ends with its parent."""

import ctypes
import signal
import sys

# Linux's request to get a signal when the parent dies.
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Runs a verb; SIGTERM, at which a run saves and stops, comes also where the parent is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # The run records the command that a person would give.
    sys.argv[0] = "electra"
    from electra_jax.cli import main as electra

    return electra()


if __name__ == "__main__":
    raise SystemExit(main())
