"""Optimize any model: the training loop, its state, optimizers, sharding and requests to stop."""
