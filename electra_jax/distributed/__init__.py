"""Run several processes as one: who leads, what all agree on, and how all stop together."""
