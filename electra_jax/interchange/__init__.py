"""Checkpoints of other implementations, to and from our parameter tree."""
