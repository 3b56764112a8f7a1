"""Define pre-training: objectives, corruption, losses, metrics and the jitted step."""
