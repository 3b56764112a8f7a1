"""Question answering: files, windows, decoding and scores."""
