"""Write, read and describe the files of a run: Orbax checkpoints and the records next to them."""
