"""`python -m electra_jax` is `electra`."""

import sys

from electra_jax.cli import main

# A run records the command that a person would give.
sys.argv[0] = "electra"
raise SystemExit(main())
