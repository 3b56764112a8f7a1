"""Answer requests over HTTP: `electra serve`."""
