"""Define the networks: layers, encoder, generator and discriminator towers, task heads."""
