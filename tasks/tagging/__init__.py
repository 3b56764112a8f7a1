"""Sequence tagging: column files, sentences and conlleval's score."""
