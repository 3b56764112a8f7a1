"""Answer rows, raw text and token ids with a trained model."""
