"""Fine-tune a pre-trained encoder on a task, one seed at a time."""
