"""Run the commands of `electra`, one module each."""
