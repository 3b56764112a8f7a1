"""The process of a piece: `electra ARGUMENTS`, which stops as at SIGTERM if the comparison that started it is killed.

Otherwise what a killed comparison left would train on, for hours, while nobody waits for it.
"""

import ctypes
import signal
import sys

# Linux's request to get a signal when the parent dies.
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Runs a verb, as `python -m electra_jax` does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # The run records the command that a person would give.
    sys.argv[0] = "electra"
    from electra_jax.cli import main as electra

    return electra()


if __name__ == "__main__":
    raise SystemExit(main())
