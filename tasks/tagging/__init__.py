"""Tag sequences: column files, sentences and conlleval's score."""
