"""Behaviour of the original implementation that is kept for parity."""
