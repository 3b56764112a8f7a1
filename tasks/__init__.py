"""SeqIO: sources, vocabularies, preprocessors and tasks."""
