"""Answers of a trained model to rows, raw text and token ids."""
