"""`python -m electra_jax` is `electra`."""

from electra_jax.cli import main

raise SystemExit(main())
