"""Read and write the checkpoints of other implementations."""
