"""The training loop, optimizer, state and mesh, for any job."""
