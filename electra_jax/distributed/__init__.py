"""Several processes as one run: who leads, what all agree on, and how all stop together."""
