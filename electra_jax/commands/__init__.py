"""One module for each command of the command line; each has a function `run`."""
