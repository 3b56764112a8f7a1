"""Write, read and describe what a run leaves behind: Orbax checkpoints and the records beside them."""
