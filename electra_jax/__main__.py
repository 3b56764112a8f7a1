"""Run `electra` as `python -m electra_jax`."""

import sys

from electra_jax.cli import main

# A run records the command as a person would type it.
sys.argv[0] = "electra"
raise SystemExit(main())
