"""From documents to cached pre-training examples and SeqIO tasks."""
