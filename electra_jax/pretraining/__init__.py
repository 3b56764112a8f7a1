"""Pre-training objectives, the corruption of text, losses, training steps and metrics."""
