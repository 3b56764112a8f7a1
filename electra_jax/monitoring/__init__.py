"""The progress and the health of a run, while it runs and from its files."""
