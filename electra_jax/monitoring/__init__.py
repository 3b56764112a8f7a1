"""Monitor a run: its log of metrics, the terminal, and checks of its health."""
