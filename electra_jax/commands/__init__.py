"""The commands of `electra`, one module each."""
