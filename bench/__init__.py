"""Time parts of the project; RESULTS.md says how and with which results."""
