"""Answer questions: files, windows, decoding and scores."""
