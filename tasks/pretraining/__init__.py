"""Turn documents into cached pre-training examples and SeqIO tasks."""
