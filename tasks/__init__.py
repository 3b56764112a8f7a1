"""Turn text and labels into token ids: corpora, vocabularies, pre-training examples and downstream tasks."""
